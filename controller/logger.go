package controller

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newLogger hands raft's messages to log: warnings and errors as they are, the rest as
// debug, because a quiet broker logs nothing.
func newLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(sink{log.With("component", "raft")})
	return l
}

const startElection = "heartbeat timeout reached, starting election"

type sink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level == hclog.Warn && msg == startElection:
		// A voter that is alone begins every life with this.
	case level == hclog.Warn:
		to = slog.LevelWarn
	case level == hclog.Error:
		to = slog.LevelError
	}
	s.log.Log(context.Background(), to, msg, args...)
}
