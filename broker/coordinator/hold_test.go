package coordinator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
)

// slowClaims is a store whose claims wait for an election first.
type slowClaims struct {
	*fakeStore
	election time.Duration
}

func (s *slowClaims) Claim(ctx context.Context, claims []controller.Claim) ([]controller.Epoch, error) {
	select {
	case <-time.After(s.election):
		return s.fakeStore.Claim(ctx, claims)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// TestHeldForElection: a request that comes while an active controller is elected waits for that and is served: some clients
// give a commit up that is told thrice to come again. One that takes longer is told so, after the same time.
func TestHeldForElection(t *testing.T) {
	for election, want := range map[time.Duration]struct {
		after time.Duration
		err   error
	}{time.Second: {time.Second, nil}, 4 * time.Second: {1500 * time.Millisecond, ErrLoading}} {
		t.Run(election.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slowClaims{fakeStore: newFakeStore()}
				c, stop := start(t, testConfig(store))
				defer stop()
				store.election = election
				c.Assign(everything(2))
				synctest.Wait()
				began := time.Now()
				err := c.Commit(t.Context(), group.Commit{Group: "g", Generation: -1}, []controller.PartitionOffset{at(topic1, 0, 1)})
				if took := time.Since(began); !errors.Is(err, want.err) || took != want.after {
					t.Errorf("commit: %v after %v, want %v after %v", err, took, want.err, want.after)
				}
			})
		})
	}
}
