package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// AwaitRefusal produces with a client that does not retry until it is refused for want of room; an error says that it was not
// for that long.
func AwaitRefusal(cl *kgo.Client, patience time.Duration) error {
	for end := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		err := cl.ProduceSync(ctx, &kgo.Record{Topic: "probe", Value: []byte("is there room?")}).FirstErr()
		cancel()
		if errors.Is(err, kerr.KafkaStorageError) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("no refusal on a full disk: the last answer was %v", err)
		}
	}
}
