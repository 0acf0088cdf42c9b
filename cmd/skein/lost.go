package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/broker"
)

func mapLost(f *opsFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "lost LOG…",
		Short: "Give up logs whose disks are gone for good",
		Long: `A log is named, not its broker: that may be live again, with a fresh directory and a new log, while the old one is nowhere.
(For a broker that will not come back: skein broker remove ID --lost.)

Without --yes it only says what would be given up: RUNS and OFFSETS are what becomes unreadable for good. GROUPS are open in
the log still, as no witness has told where they end; if none does within seconds, the broker that is asked opens them at their
ceilings: offsets jump, and producers' deduplication begins anew.

With --yes the log's record is deleted, so that its disk is refused wherever it turns up again, and everything that lay there is
noted as lost in the map: readers go on behind it, retention counts it as expired. A log that a live broker has is refused.
Asked again after an interruption, it finishes what it began. There is no way back.`,
		Example: "  skein map lost 7f1c0e52-…\n  skein map lost 7f1c0e52-… --yes",
		Args:    wantArgs(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.lose(cmd, broker.LostRequest{Logs: args, Yes: yes})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// lose gives logs up, or says what that would be.
func (f *opsFlags) lose(cmd *cobra.Command, rq broker.LostRequest) error {
	var rs broker.LostResult
	if err := f.call(cmd.Context(), "POST", "/v1/map/lost", rq, &rs); err != nil {
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), rs)
	}
	t := newTable(cmd.OutOrStdout(), "LOG", "BROKER", "GROUPS", "RUNS", "OFFSETS")
	for _, l := range rs.Logs {
		t.row(l.ID, l.Broker, l.Groups, l.Runs, l.Offsets)
	}
	if err := t.flush(); err != nil {
		return err
	}
	said := "nothing was changed: with --yes they are given up, for good"
	if rs.Done {
		said = "given up"
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), said)
	return err
}
