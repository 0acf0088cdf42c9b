package controller

import (
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// streamTimeout bounds one message between two voters; a snapshot has more, by its size.
const streamTimeout = 2 * time.Second

// NewTransport carries raft's messages over the streams of an internal listener. The controller that
// is given it closes it.
func NewTransport(layer raft.StreamLayer, log *slog.Logger) *raft.NetworkTransport {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 3, Timeout: streamTimeout, Logger: newLogger(log), MsgpackUseNewTimeFormat: true,
	})
}
