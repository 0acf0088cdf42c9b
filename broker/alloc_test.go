package broker

import (
	"testing"
	"time"
)

// A warm Produce request, from the socket to the socket, log and all, costs few allocations, however many partitions
// it names.
func TestProduceAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and pools drop at random under it")
	}
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 16, nil)
	w := c.dial()
	req := produceRequest(9, topic, 0, batch(3, time.Now()))
	for p := range int32(15) {
		more := req.Topics[0].Partitions[0]
		more.Partition = p + 1
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, more)
	}
	roundTrip := w.roundTrip(frameOf(req, 1))
	for range 50 {
		roundTrip()
	}
	if got := testing.AllocsPerRun(300, roundTrip); got > 8 {
		t.Errorf("%v allocations for a request of 16 batches, want at most 8", got)
	} else {
		t.Logf("%v allocations for a request of 16 batches", got)
	}
}

// A warm Fetch request of recent records, without a session.
func TestFetchAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and pools drop at random under it")
	}
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 4, nil)
	w := c.dial()
	for p := range int32(4) {
		w.produceTo(9, topic, p, batch(3, time.Now()))
	}
	roundTrip := w.roundTrip(frameOf(fetchRequest(11, topic, 0, 0, 0, 0), 1))
	for range 50 {
		roundTrip()
	}
	if got := testing.AllocsPerRun(300, roundTrip); got > 24 {
		t.Errorf("%v allocations for a request of 4 partitions, want at most 24", got)
	} else {
		t.Logf("%v allocations for a request of 4 partitions", got)
	}
}
