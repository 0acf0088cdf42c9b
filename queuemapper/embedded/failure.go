package embedded

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// ErrFailed: etcd could not write to its disk. It is no use any more, and neither is Close's waiting for it.
var ErrFailed = errors.New("etcd failed")

// failure takes etcd's last words. A write of its that fails is the end of its process, as it sees things; but the process is
// not its own, and the rest of it wants to end in order. So the goroutine that said it stays where it is, for ever.
type failure struct {
	live atomic.Bool // etcd's own goroutines run; before, it is Start's, which recovers from a panic
	once sync.Once
	done chan struct{} // closed once cause is set
	err  error
}

func newFailure() *failure { return &failure{done: make(chan struct{})} }

// OnWrite implements zapcore.CheckWriteHook for entries of level fatal.
func (f *failure) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	if !f.live.Load() {
		panic(e.Message)
	}
	f.once.Do(func() {
		f.err = fmt.Errorf("%w: %s%s", ErrFailed, e.Message, causes(fields))
		close(f.done)
	})
	select {}
}

// causes renders the errors among a line's fields.
func causes(fields []zapcore.Field) (out string) {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			out += ": " + err.Error()
		}
	}
	return out
}

// Failed is closed when etcd could not write to its disk: Failure says why.
func (s *Server) Failed() <-chan struct{} { return s.failure.done }

// Failure is valid once Failed is closed. It wraps ErrFailed.
func (s *Server) Failure() error { return s.failure.err }
