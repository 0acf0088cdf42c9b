package goclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// errExists is what createTopic returns for a topic that is there already.
var errExists = errors.New("topic exists")

// adminSteps are a library's admin calls. A nil field is a call that the
// library does not have; the driver's table names it.
type adminSteps struct {
	createTopic    func(ctx context.Context, topic string, partitions int, configs map[string]string) error
	deleteTopic    func(ctx context.Context, topic string) error
	topics         func(ctx context.Context) (map[string]int, error) // partitions by topic; only topics with all leaders
	addPartitions  func(ctx context.Context, topic string, total int) error
	config         func(ctx context.Context, topic, key string) (string, error)
	setConfig      func(ctx context.Context, topic, key, value string) error
	deleteRecords  func(ctx context.Context, topic string, before int64) error
	groups         func(ctx context.Context) ([]string, error)
	groupState     func(ctx context.Context, group string) (string, error)
	deleteGroup    func(ctx context.Context, group string) error
	clusterBrokers func(ctx context.Context) (int, error)
}

// adminCase creates, describes, alters, widens, trims and deletes.
func adminCase(ctx context.Context, c Client, p Params) error {
	a, err := c.Admin()
	if err != nil {
		return err
	}
	topic := p["topic"]
	if n, err := a.clusterBrokers(ctx); err != nil || n < 1 {
		return fmt.Errorf("describe cluster: %d brokers, error %v", n, err)
	}
	if err := a.createTopic(ctx, topic, 3, map[string]string{"retention.ms": "12345678"}); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	if err := a.createTopic(ctx, topic, 3, nil); !errors.Is(err, errExists) {
		return fmt.Errorf("create topic again: want topic exists, got %v", err)
	}
	if err := awaitPartitions(ctx, a, topic, 3); err != nil {
		return err
	}
	if err := wantConfig(ctx, a, topic, "12345678"); err != nil {
		return err
	}
	if a.setConfig != nil {
		if err := a.setConfig(ctx, topic, "retention.ms", "23456789"); err != nil {
			return fmt.Errorf("alter config: %w", err)
		}
		if err := wantConfig(ctx, a, topic, "23456789"); err != nil {
			return err
		}
	}
	if err := a.addPartitions(ctx, topic, 5); err != nil {
		return fmt.Errorf("create partitions: %w", err)
	}
	if err := awaitPartitions(ctx, a, topic, 5); err != nil {
		return err
	}
	if a.deleteRecords != nil {
		if err := a.deleteRecords(ctx, p["trim"], p.num("before")); err != nil {
			return fmt.Errorf("delete records: %w", err)
		}
	}
	if err := adminGroup(ctx, a, p["group"]); err != nil {
		return err
	}
	if err := a.deleteTopic(ctx, topic); err != nil {
		return fmt.Errorf("delete topic: %w", err)
	}
	return awaitPartitions(ctx, a, topic, 0)
}

func adminGroup(ctx context.Context, a adminSteps, group string) error {
	groups, err := a.groups(ctx)
	if err != nil {
		return fmt.Errorf("list groups: %w", err)
	}
	if !slices.Contains(groups, group) {
		return fmt.Errorf("list groups: %q is missing in %q", group, groups)
	}
	if state, err := a.groupState(ctx, group); err != nil || state != "Empty" {
		return fmt.Errorf("describe group: state %q, want Empty, error %v", state, err)
	}
	if a.deleteGroup == nil {
		return nil
	}
	if err := a.deleteGroup(ctx, group); err != nil {
		return fmt.Errorf("delete group: %w", err)
	}
	if groups, err = a.groups(ctx); err != nil || slices.Contains(groups, group) {
		return fmt.Errorf("list groups after delete: %q still there %t, error %v", group, slices.Contains(groups, group), err)
	}
	return nil
}

func wantConfig(ctx context.Context, a adminSteps, topic, want string) error {
	// The answer of an alter does not promise that every broker has seen it.
	for try := 0; ; try++ {
		got, err := a.config(ctx, topic, "retention.ms")
		if err == nil && got == want {
			return nil
		}
		if try == 20 {
			return fmt.Errorf("describe config: retention.ms is %q, want %q, error %v", got, want, err)
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// awaitPartitions waits up to five seconds until the topic has that many
// partitions with leaders; 0 means that the topic is gone.
func awaitPartitions(ctx context.Context, a adminSteps, topic string, want int) error {
	for try := 0; ; try++ {
		topics, err := a.topics(ctx)
		if err == nil && topics[topic] == want {
			return nil
		}
		if try == 50 {
			return fmt.Errorf("list topics: %q has %d partitions with leaders, want %d, error %v", topic, topics[topic], want, err)
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
