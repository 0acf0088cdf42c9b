package commitlog

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/internal/vfs"
)

// TestStopWithAnswersBehindWrite: a log that is told to stop while answers wait behind a write, in a block that has
// nothing to be written, gives them and ends. Nobody tells the sequencer that such a block is done.
func TestStopWithAnswersBehindWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := vfs.NewFaulty(vfs.NewMem())
		r := start(t, testConfig(faulty, "data"))
		r.begin()
		q := r.queue(1, 0)
		synctest.Wait() // the filler of files is at rest: the next write is the block's
		hang := faulty.Inject(vfs.Rule{Kinds: vfs.KindWrite, Effect: vfs.HangBefore})
		written := r.later(batchOf(q, testBatch(1, 1, 10)))
		<-hang.Hit()
		refused := r.later(Batch{Queue: q})
		synctest.Wait()
		r.cancel()
		synctest.Wait()
		hang.Release()
		select {
		case err := <-r.ended:
			r.ended <- err
		case <-time.After(time.Second):
			t.Error("the log goes on after it was told to stop and its last write was done")
			r.inbox.wake.poke()
		}
		r.stop()
		if res := (<-written).Batches[0].Result; res.Err != nil {
			t.Errorf("what was being written: %v", res.Err)
		}
		if res := (<-refused).Batches[0].Result; !errors.Is(res.Err, errBad) {
			t.Errorf("what was refused: %v, want %v", res.Err, errBad)
		}
	})
}
