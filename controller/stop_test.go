package controller

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestStopUnderLoad stops a voter while commands are under way: raft drops some of them without an answer.
func TestStopUnderLoad(t *testing.T) {
	dir := t.TempDir()
	for range 40 {
		c, stop := running(t, Config{Dir: dir})
		var work sync.WaitGroup
		for range 16 {
			work.Go(func() {
				for {
					if _, _, err := c.ProducerIDs(t.Context()); err != nil {
						return
					}
				}
			})
		}
		if _, _, err := c.ProducerIDs(t.Context()); err != nil {
			t.Fatal(err)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		select {
		case err := <-stopped:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatalf("still running %v after the end of its context", patience)
		}
		work.Wait()
	}
}

// dropped is a future that nobody answers.
type dropped struct{}

func (dropped) Error() error { select {} }

func TestAnswerOfDroppedFuture(t *testing.T) {
	c := &Controller{over: make(chan struct{})}
	close(c.over)
	if err := c.answer(dropped{}); !errors.Is(err, raft.ErrRaftShutdown) {
		t.Errorf("got %v", err)
	}
}
