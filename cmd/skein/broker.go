package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/internal/ident"
)

func brokerCommand() *cobra.Command {
	var f opsFlags
	cmd := &cobra.Command{Use: "broker", Short: "List brokers; drain, undrain and remove one", Args: noArgs}
	f.add(cmd)
	cmd.AddCommand(brokerList(&f), brokerDrain(&f), brokerUndrain(&f), brokerRemove(&f))
	return cmd
}

func brokerList(f *opsFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List brokers, and what is in their logs",
		Long: `GROUPS are placement groups whose writes a broker takes, RUNS older generations that are read from its
logs. An away broker is not registered; it is listed as long as the map has logs of it. One that "does not
answer" is registered still, as no majority of the voters is there to say otherwise. Absent are logs that a live
broker does not have: their directory is not there, or is an empty one now (skein map show lists them).`,
		Example: "  skein broker list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			views, err := f.brokers(cmd.Context())
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), views)
			}
			t := newTable(cmd.OutOrStdout(), "BROKER", "ADDRESS", "INTERNAL", "RACK", "STATE", "LOGS", "GROUPS", "RUNS")
			for _, v := range views {
				state := v.State
				if v.Drained {
					state += ", drained"
				}
				if v.Full {
					state += ", disk full"
				}
				if v.Absent > 0 {
					state += fmt.Sprintf(", %d of %d logs absent", v.Absent, v.Logs)
				}
				t.row(v.ID, v.Address, v.Internal, v.Rack, state, v.Logs, v.Groups, v.Runs)
			}
			return t.flush()
		},
	}
}

func (f *opsFlags) brokers(ctx context.Context) (views []broker.BrokerView, err error) {
	err = f.call(ctx, "GET", "/v1/brokers", nil, &views)
	return views, err
}

// brokerArg reads the one argument of a command that is about one broker.
func brokerArg(args []string) (ident.Broker, error) {
	id, err := strconv.ParseInt(args[0], 10, 32)
	if err != nil || id < 0 {
		return 0, usageError{fmt.Errorf("%q is not a broker's id", args[0])}
	}
	return ident.Broker(id), nil
}

func brokerDrain(f *opsFlags) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "drain ID",
		Short: "Move every placement group away from a broker, and give it none",
		Long: `Marks the broker in the map. It moves its groups to the others, while clients go on, and gets none until
undrain. What is stored on it is read there as before: it must keep running until that has expired. Waits until no group
is left on it.`,
		Example: "  skein broker drain 3",
		Args:    wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := brokerArg(args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
			defer cancel()
			var rs broker.BrokerResult
			if err := f.call(ctx, "POST", fmt.Sprintf("/v1/brokers/%d/drain", id), nil, &rs); err != nil {
				return err
			}
			for !noWait && rs.Broker.Groups > 0 {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
					return fmt.Errorf("broker %d still has %d groups", id, rs.Broker.Groups)
				}
				views, err := f.brokers(ctx)
				if err != nil {
					return err
				}
				rs.Broker.Groups = 0
				for _, v := range views {
					if v.ID == id {
						rs.Broker = v
					}
				}
			}
			return f.printBroker(cmd, rs, "drained")
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "only mark it")
	return cmd
}

func brokerUndrain(f *opsFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "undrain ID",
		Short:   "Let a broker that was drained take groups again",
		Example: "  skein broker undrain 3",
		Args:    wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.changeBroker(cmd, args, "POST", "/undrain", "takes groups again")
		},
	}
}

func brokerRemove(f *opsFlags) *cobra.Command {
	var lost, yes bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a broker for good that was drained and stopped, and whose logs hold nothing any more",
		Long: `Deletes the records of its logs from the map: from then on their disks are refused. Nothing that can be
read is removed: groups and older generations in its logs must be gone (see broker list).

With --lost it removes a broker that is away and whose disk is gone for good. What lay there is given up, as skein map
lost does it; without --yes it only says what that is.`,
		Example: "  skein broker remove 3\n  skein broker remove 3 --lost --yes",
		Args:    wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := brokerArg(args)
			if err != nil {
				return err
			}
			if lost {
				err = f.lose(cmd, broker.LostRequest{Broker: &id, Yes: yes})
			} else {
				err = f.changeBroker(cmd, args, "DELETE", "", "removed")
			}
			if err != nil || lost && !yes {
				return err
			}
			rq := votersRequest{Verb: "remove", Broker: id}
			if err := f.call(cmd.Context(), "POST", "/v1/cluster/voters", rq, nil); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "it is a member of the controller still (skein cluster voters remove %d): %v\n", id, err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&lost, "lost", false, "its disk is gone for good: give up what lay there")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --lost: do it")
	return cmd
}

func (f *opsFlags) changeBroker(cmd *cobra.Command, args []string, method, verb, done string) error {
	id, err := brokerArg(args)
	if err != nil {
		return err
	}
	var rs broker.BrokerResult
	if err := f.call(cmd.Context(), method, fmt.Sprintf("/v1/brokers/%d%s", id, verb), nil, &rs); err != nil {
		return err
	}
	return f.printBroker(cmd, rs, done)
}

func (f *opsFlags) printBroker(cmd *cobra.Command, rs broker.BrokerResult, done string) error {
	if f.json {
		return printJSON(cmd.OutOrStdout(), rs)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "broker %d %s; %d groups, %d older generations in its logs\n", rs.Broker.ID, done, rs.Broker.Groups, rs.Broker.Runs)
	return nil
}
