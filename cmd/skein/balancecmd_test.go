package main

import (
	"strings"
	"testing"

	"github.com/skeinmq/skein/controller/balance"
)

// TestPrintBalance: a dry run explains moves, splits and what stands in their way; without it only what was done is told.
func TestPrintBalance(t *testing.T) {
	s := balance.Status{
		Enabled: true, Held: "the limit is reached", Notes: []string{"broker 2 takes no more groups: its disk is 91 % full"},
		Logs:   []balance.LogStatus{{Broker: 2, Log: "l", Groups: 3, Partitions: 7, Load: 1.5, DiskUsed: 0.913}},
		Moves:  []balance.MoveStatus{{Group: 4, FromBroker: 2, ToBroker: 1, Cause: balance.CauseLoad, Why: "it is hot"}},
		Splits: []balance.Split{{Topic: "orders", Partition: 7, From: 4, To: 9, Broker: 2, Why: "it makes 60 % of it"}},
		Recent: []balance.MoveStatus{{Group: 5, FromBroker: 2, ToBroker: 3, Cause: balance.CauseShare, Error: "busy"}},
	}
	for dry, want := range map[bool][]string{
		true:  {"the balancer waits: the limit is reached", "91 % full", "1.50", "91%", "1 groups would move now", "it is hot", "would split orders:7 off group 4 into group 9: it makes 60 % of it"},
		false: {"the balancer waits: the limit is reached", "91 % full", "1 groups moved last", "failed: busy"},
	} {
		var out strings.Builder
		if err := printBalance(&out, &s, dry); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("dry %v: %q is not in\n%s", dry, w, out.String())
			}
		}
		if !dry && strings.Contains(out.String(), "would") {
			t.Errorf("without dry run:\n%s", out.String())
		}
	}
}
