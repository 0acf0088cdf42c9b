package cluster

import (
	"testing"
	"time"
)

// tooLong is far more than it takes to find out that there is no quorum, and less than the 30 s for which a broker that does not
// find out tries to give its groups away.
const tooLong = 25 * time.Second

// TestStopTogether tells all brokers to stop, at once and shortly after each other: the later ones are left without witnesses
// and without a quorum while they give their groups away. Each exits in order and soon; nothing is lost.
func TestStopTogether(t *testing.T) {
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	n := byOwner(l.leaders())
	for _, id := range c.IDs() {
		if n[id] < 13 || n[id] > 14 {
			t.Errorf("of 40 partitions of a new cluster's first topic broker %d leads %d", id, n[id])
		}
	}
	for i := range rounds(4, 20) {
		l.write()
		apart := time.Duration(i%4) * 60 * time.Millisecond
		c.started(t, forEach(c, func(id int) error {
			time.Sleep(time.Duration(id) * apart)
			took, err := c.Stop(id)
			if t.Logf("broker %d, %v apart: %v", id, apart, took.Round(time.Millisecond)); took > tooLong {
				t.Errorf("broker %d took %v to stop", id, took)
			}
			return err
		}))
		c.started(t, c.StartAll())
	}
	l.write()
	l.check()
}
