package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/controller/balance"
)

func balanceCommand() *cobra.Command {
	var f opsFlags
	var dry bool
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "Show how groups and load are spread, and what the balancer does",
		Long: `The active controller moves placement groups: away from brokers that drain, to where they are pinned, away from disks
that are nearly full, to brokers that have fewer than their share, and, one by one, away from brokers with much more load than
the others. LOAD 1.00 is the mean. A group that is too hot to be moved loses a partition to another one (split).
With --dry-run it says what it would move and split now, and why, also while it is off or waits.`,
		Example: "  skein balance\n  skein balance --dry-run\n  skein balance off",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s balance.Status
			if err := f.call(cmd.Context(), "GET", "/v1/balance", nil, &s); err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return printBalance(cmd.OutOrStdout(), &s, dry)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "explain the moves that would be made now; nothing is moved")
	on, off := true, false
	cmd.AddCommand(
		balanceVerb(&f, "on", "Let the balancer move groups", "Sets "+balance.ConfigEnabled+"=true for all brokers.", balanceRequest{Enabled: &on}),
		balanceVerb(&f, "off", "Keep groups where they are", "Sets "+balance.ConfigEnabled+"=false for all brokers. Draining brokers are still emptied, and pins followed.", balanceRequest{Enabled: &off}),
		balanceVerb(&f, "resume", "Go on although many brokers vanished", "When more than a third of the brokers vanish within a minute the balancer stops until they are back, or until this.", balanceRequest{Resume: true}),
	)
	return cmd
}

func balanceVerb(f *opsFlags, verb, short, long string, rq balanceRequest) *cobra.Command {
	return &cobra.Command{
		Use: verb, Short: short, Long: long, Example: "  skein balance " + verb, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd.Context(), "POST", "/v1/balance", rq, nil)
		},
	}
}

func printBalance(out io.Writer, s *balance.Status, dry bool) error {
	switch {
	case s.Held != "":
		fmt.Fprintln(out, "the balancer waits:", s.Held)
	case !s.Enabled:
		fmt.Fprintln(out, "the balancer is off")
	}
	for _, n := range s.Notes {
		fmt.Fprintln(out, n)
	}
	t := newTable(out, "BROKER", "LOG", "GROUPS", "PARTITIONS", "LOAD", "DISK", "STATE")
	for _, l := range s.Logs {
		t.row(l.Broker, l.Log, l.Groups, l.Partitions, fmt.Sprintf("%.2f", l.Load), fmt.Sprintf("%.0f%%", 100*l.DiskUsed), map[bool]string{true: "draining"}[l.Draining])
	}
	if err := t.flush(); err != nil {
		return err
	}
	moves, what := s.Recent, "moved last"
	if dry {
		moves, what = s.Moves, "would move now"
	}
	fmt.Fprintf(out, "\n%d groups %s\n", len(moves), what)
	if len(moves) > 0 {
		t = newTable(out, "GROUP", "FROM", "TO", "CAUSE", "WHY")
		for _, m := range moves {
			if m.Error != "" {
				m.Why = "failed: " + m.Error
			}
			t.row(m.Group, m.FromBroker, m.ToBroker, m.Cause, m.Why)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if !dry {
		return nil
	}
	for _, p := range s.Splits {
		fmt.Fprintf(out, "would split %s:%d off group %d into group %d: %s\n", p.Topic, p.Partition, p.From, p.To, p.Why)
	}
	return nil
}
