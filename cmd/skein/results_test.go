package main

import (
	"bytes"
	"testing"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// TestOutcomesAreSorted: by name, whatever order the client library has them in.
func TestOutcomesAreSorted(t *testing.T) {
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	err := new(kafkaFlags).outcomes(cmd, []outcome{outcomeOf("c", nil), outcomeOf("z", kerr.UnknownTopicOrPartition), outcomeOf("a", nil), outcomeOf("b", nil)})
	if want := "a\nb\nc\n"; out.String() != want || err == nil {
		t.Errorf("printed %q, %v; want %q and an error", out.String(), err, want)
	}
}

// TestListedErrorNamesPartitions: what is wrong in several answers is told once, by name.
func TestListedErrorNamesPartitions(t *testing.T) {
	at := func(topic string, partition int32, err error) kadm.ListedOffsets {
		return kadm.ListedOffsets{topic: {partition: {Topic: topic, Partition: partition, Err: err}}}
	}
	unknown, away := kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable
	err := listedError(at("nosuch", -1, unknown), at("nosuch", -1, unknown), at("fine", 0, nil), at("away", 3, away))
	if want := "away-3: " + away.Error() + "\nnosuch: " + unknown.Error(); err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if err := listedError(at("fine", 0, nil)); err != nil {
		t.Error(err)
	}
}
