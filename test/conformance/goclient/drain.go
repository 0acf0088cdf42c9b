package goclient

import (
	"context"
	"fmt"
	"time"

	"github.com/skeinmq/skein/test/conformance/record"
)

// drain takes what a member's own loop hands over, for at most a tenth of a
// second, and stops as soon as nothing more is at hand.
func drain(ctx context.Context, records <-chan record.Record, failed <-chan error) ([]record.Record, error) {
	var out []record.Record
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case r := <-records:
			out = append(out, r)
			continue
		case err := <-failed:
			return out, err
		default:
		}
		if len(out) > 0 {
			return out, nil
		}
		select {
		case r := <-records:
			out = append(out, r)
		case err := <-failed:
			return out, err
		case <-t.C:
			if ctx.Err() != nil {
				return out, context.Cause(ctx)
			}
			return out, nil
		}
	}
}

func errAfter(got, want int, ctx context.Context) error {
	return fmt.Errorf("after %d of %d records: %w", got, want, context.Cause(ctx))
}
