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
	if got := allocations(roundTrip); got > 4 {
		t.Errorf("%v allocations for a request of 16 batches, want at most 4", got)
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
	if got := allocations(roundTrip); got > 14 {
		t.Errorf("%v allocations for a request of 4 partitions, want at most 14", got)
	} else {
		t.Logf("%v allocations for a request of 4 partitions", got)
	}
}

// allocations is what one call allocates by itself. What etcd, raft and timers allocate beside it is counted with it, the more the
// longer a call takes, so the least of several counts is it.
func allocations(call func()) float64 {
	least := testing.AllocsPerRun(30, call)
	for range 19 {
		least = min(least, testing.AllocsPerRun(30, call))
	}
	return least
}
