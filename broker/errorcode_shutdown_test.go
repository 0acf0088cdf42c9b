package broker

import (
	"context"
	"testing"

	"github.com/skeinmq/skein/protocol"
)

// TestCutOffIsRetriable: whoever is cut off as its broker stops asks somebody else, and gives up nothing.
func TestCutOffIsRetriable(t *testing.T) {
	for _, cause := range []error{errShutdown, errConnEnded, errPeerGone} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if code := codeOf(context.Cause(ctx)); code != protocol.CodeNotLeaderOrFollower {
			t.Errorf("%v: code %d, want %d", cause, code, protocol.CodeNotLeaderOrFollower)
		}
	}
}
