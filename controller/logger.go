package controller

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// newLogger hands raft's messages to log: warnings and errors as they are, the rest as
// debug, because a quiet broker logs nothing.
func newLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(&sink{log: log.With("component", "raft"), said: make(map[string]time.Time)})
	return l
}

// ofPeers are what a member says while another one is away, as it comes back, and in every election. Who is away and what is
// done about it the sessions say, in one line, and a cluster without a leader says so by itself.
var ofPeers = map[string]bool{
	"failed to heartbeat to":                                     true,
	"failed to appendEntries to":                                 true,
	"failed to pipeline appendEntries":                           true,
	"failed to contact":                                          true,
	"failed to make requestVote RPC":                             true,
	"failed to decode incoming command":                          true,
	"failed to get previous log":                                 true,
	"appendEntries rejected, sending older logs":                 true,
	"peer has newer term, stopping replication":                  true,
	"rejecting pre-vote request since we have a leader":          true,
	"rejecting vote request since we have a leader":              true,
	"rejecting pre-vote request since our last term is greater":  true,
	"rejecting vote request since our last term is greater":      true,
	"rejecting pre-vote request since our last index is greater": true,
	"rejecting vote request since our last index is greater":     true,
	"Election timeout reached, restarting election":              true,
	"not part of stable configuration, aborting election":        true,
}

const startElection = "heartbeat timeout reached, starting election"

// sayAgain is how often a message about the same member is logged at most: raft repeats several times a second that
// one is gone.
const sayAgain = 30 * time.Second

type sink struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time // by message and peer
}

// due reports whether a message may be logged now.
func (s *sink) due(msg string, args []any, now time.Time) bool {
	key := msg
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "peer" {
			key += fmt.Sprint(args[i+1])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.said[key]; ok && now.Sub(at) < sayAgain {
		return false
	}
	if len(s.said) >= 1000 {
		clear(s.said)
	}
	s.said[key] = now
	return true
}

// Accept implements hclog.SinkAdapter.
func (s *sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case ofPeers[msg]:
	case level == hclog.Warn && msg == startElection:
		// A voter that is alone begins every life with this.
	case level == hclog.Warn:
		to = slog.LevelWarn
	case level == hclog.Error:
		to = slog.LevelError
	}
	if to != slog.LevelDebug && !s.due(msg, args, time.Now()) {
		return
	}
	s.log.Log(context.Background(), to, msg, args...)
}
