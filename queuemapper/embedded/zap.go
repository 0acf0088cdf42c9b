package embedded

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo makes a zap logger whose warnings and errors go to l. What is below a warning is
// dropped: a quiet broker logs nothing. So is all that etcd says once closing is set: its
// goroutines complain of being stopped. failure is told what etcd does not survive.
func zapTo(l *slog.Logger, closing *atomic.Bool, failure *failure) *zap.Logger {
	core := slogCore{LevelEnabler: zapcore.WarnLevel, to: l.With("component", "etcd"), closing: closing, said: new(said)}
	return zap.New(core, zap.WithFatalHook(failure))
}

// harmless are what every start of a single member says, and the like.
var harmless = map[string]bool{
	"simple token is not cryptographically signed": true, // authentication is off
	"Failed to detect schema version":              true, // a fresh store has none until its first snapshot
	"failed to update storage version":             true, // the same; it is tried again

	// Said of a change of members that is asked for again until it is possible.
	"rejecting promote learner: learner is not ready":                                                                       true,
	"rejecting member add request; local member has not been connected to majority peers, reconfigure breaks active quorum": true,
	"rejecting member remove request; local member has not been connected to all peers, reconfigure breaks active quorum":   true,
}

// notYet ends what raft says at a start before it has applied the changes of members in its log; it asks for votes again at once. (What
// comes before names the member and the term.)
const notYet = " since there are still pending configuration changes to apply"

// ofPeers are what a member says, on and on, while another one is away and as it comes back. Who that is and what is done about
// it the controller's sessions say, in one line; these are for whoever looks closer.
var ofPeers = map[string]bool{
	"prober detected unhealthy status":                           true,
	"peer became inactive (message send to peer failed)":         true,
	"lost TCP streaming connection with remote peer":             true,
	"closed TCP streaming connection with remote peer":           true,
	"failed to reach the peer URL":                               true,
	"failed to get version":                                      true,
	"dropped internal Raft message since sending buffer is full": true,
	"error occurred during lease keep alive request sending":     true,
	"Failed to check current member's leadership":                true,
	"failed to revoke lease":                                     true, // it ended by itself
	"leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk": true, // they are 20 ms apart
}

type slogCore struct {
	zapcore.LevelEnabler
	to      *slog.Logger
	closing *atomic.Bool
	said    *said
}

// said is when a message was logged last. etcd repeats itself several times a second about a member that is gone.
type said struct {
	mu sync.Mutex
	at map[string]time.Time // by message, of which etcd has a closed set
}

const sayAgain = 30 * time.Second

// due reports whether a message may be logged now.
func (s *said) due(message string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.at[message]; ok && now.Sub(last) < sayAgain {
		return false
	}
	if s.at == nil || len(s.at) >= 1000 {
		s.at = make(map[string]time.Time)
	}
	s.at[message] = now
	return true
}

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	c.to = c.to.With(attrs(fields)...)
	return c
}

func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	quiet := harmless[e.Message] || strings.HasSuffix(e.Message, notYet)
	if c.Enabled(e.Level) && !quiet && !c.closing.Load() && (e.Level >= zapcore.DPanicLevel || c.said.due(e.Message, e.Time)) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	switch {
	case ofPeers[e.Message]:
		level = slog.LevelDebug
	case e.Level >= zapcore.ErrorLevel:
		level = slog.LevelError
	}
	c.to.Log(context.Background(), level, e.Message, attrs(fields)...)
	return nil
}

func (slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, 2*len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, f.Key, v)
		}
	}
	return out
}
