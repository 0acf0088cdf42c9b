package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/internal/ident"
)

func mapCommand() *cobra.Command {
	var f opsFlags
	cmd := &cobra.Command{Use: "map", Short: "Show and change where partitions live", Args: noArgs}
	f.add(cmd)
	cmd.AddCommand(mapShow(&f), mapMove(&f), mapSplit(&f), mapLost(&f))
	return cmd
}

func mapShow(f *opsFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "show [TOPIC[:PARTITION]]",
		Short: "Show logs and placement groups, or the runs of partitions",
		Long: `Without an argument: the logs, and which placement groups are open on each. With a topic:
each partition's runs, from logical offsets to physical queues: generation, log, offset range
and bytes.`,
		Example: "  skein map show\n  skein map show orders:7 --json",
		Args:    wantArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				var v broker.MapView
				if err := f.call(cmd.Context(), "GET", "/v1/map", nil, &v); err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), v)
				}
				return printMap(cmd.OutOrStdout(), v)
			}
			name, index, err := topicPartition(args[0])
			if err != nil {
				return usageError{err}
			}
			path := "/v1/map/topics/" + url.PathEscape(name)
			if index >= 0 {
				path += "?partition=" + strconv.Itoa(index)
			}
			var v broker.TopicMapView
			if err := f.call(cmd.Context(), "GET", path, nil, &v); err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return printRuns(cmd.OutOrStdout(), v)
		},
	}
}

// elsewhere stands for what only another broker knows.
const elsewhere = "-"

func printMap(w io.Writer, v broker.MapView) error {
	fmt.Fprintf(w, "cluster %s  %d topics  %d partitions  %d groups  revision %d\n", v.Cluster, v.Topics, v.Partitions, len(v.Groups), v.Revision)
	logs := newTable(w, "LOG", "BROKER", "EPOCH", "STATE", "WITNESSES", "GROUPS", "DISK", "FREE")
	for _, l := range v.Logs {
		disk, free := elsewhere, elsewhere
		if l.Here {
			disk, free = humanBytes(l.DiskBytes), humanBytes(l.FreeBytes)
		}
		logs.row(l.ID, l.Broker, l.Epoch, l.State, strings.Trim(fmt.Sprint(l.Witnesses), "[]"), l.Groups, disk, free)
	}
	if err := logs.flush(); err != nil {
		return err
	}
	groups := newTable(w, "GROUP", "EPOCH", "LOG", "FRAME", "GENERATIONS", "PARTITIONS")
	for _, g := range v.Groups {
		groups.row(g.Group, g.Epoch, g.Log, g.Frame, g.Generations, g.Partitions)
	}
	return groups.flush()
}

func printRuns(w io.Writer, v broker.TopicMapView) error {
	fmt.Fprintf(w, "%s  id %s\n", v.Name, v.ID)
	t := newTable(w, "PARTITION", "GROUP", "EPOCH", "LOG", "OFFSETS", "BYTES", "STATE")
	for _, p := range v.Partitions {
		for _, r := range p.Runs {
			state := r.State
			if r.Hole > 0 {
				state += fmt.Sprintf(", nothing up to %d", r.Hole)
			}
			for _, lost := range r.Lost {
				state += fmt.Sprintf(", LOST %d..%d", lost[0], lost[1])
			}
			offsets, bytes := fmt.Sprintf("%d..%d", r.Start, r.End), humanBytes(r.Bytes)
			if !r.Here {
				bytes = elsewhere
				if r.State != "sealed" && r.End == r.Start {
					offsets = fmt.Sprintf("%d..", r.Start) // where an open one ends, its owner knows
				}
			}
			t.row(p.Index, r.Group, r.Epoch, r.Log, offsets, bytes, state)
		}
	}
	return t.flush()
}

func mapMove(f *opsFlags) *cobra.Command {
	var rq broker.MoveRequest
	var groups []int32
	cmd := &cobra.Command{
		Use:   "move",
		Short: "Move placement groups to another log; no data is copied",
		Long: `Ends each group's generation at its exact offset and opens the next one in the other log,
while clients go on. Prints how long writes of each group paused. With --spread, groups are
moved until every open log has its even share.

The balancer may move a group on, as any other. One that is pinned (kafka-reassign-partitions) is pinned to where it came,
except with --spread.`,
		Example: "  skein map move --group 7 --to 7f1c0e52-…\n  skein map move --all --from 02e4… --to 7f1c…\n  skein map move --spread",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rq.Groups = groups
			ways := 0
			for _, set := range []bool{len(groups) > 0, rq.All, rq.Spread} {
				if set {
					ways++
				}
			}
			if ways != 1 || rq.To == "" && !rq.Spread {
				return usageError{errors.New("give --group with --to, --all with --from and --to, or --spread")}
			}
			for flag, v := range map[string]string{"from": rq.From, "to": rq.To} {
				if _, err := ident.ParseLog(v); v != "" && err != nil {
					return usageError{fmt.Errorf("--%s: %q is not a log's id (see map show)", flag, v)}
				}
			}
			if rq.All && rq.From == "" {
				return usageError{errors.New("--all: which log? give --from")}
			}
			var rs broker.MoveResult
			if err := f.call(cmd.Context(), "POST", "/v1/map/move", rq, &rs); err != nil {
				return err
			}
			return f.printMoves(cmd, rs)
		},
	}
	cmd.Flags().Int32SliceVarP(&groups, "group", "g", nil, "placement groups")
	cmd.Flags().BoolVar(&rq.All, "all", false, "all groups that are open on --from")
	cmd.Flags().StringVar(&rq.From, "from", "", "log to move from")
	cmd.Flags().StringVar(&rq.To, "to", "", "log to move to")
	cmd.Flags().BoolVar(&rq.Spread, "spread", false, "even out the groups over all open logs")
	return cmd
}

func mapSplit(f *opsFlags) *cobra.Command {
	var rq broker.SplitRequest
	var group int32
	cmd := &cobra.Command{
		Use:     "split TOPIC:PARTITION --group N",
		Short:   "Give one hot partition another placement group from here on",
		Example: "  skein map split orders:7 --group 12",
		Args:    wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, index, err := topicPartition(args[0])
			if err != nil || index < 0 {
				return usageError{fmt.Errorf("%q is not TOPIC:PARTITION", args[0])}
			}
			if group < 0 {
				return usageError{errors.New("--group: which group takes it?")}
			}
			rq.Topic, rq.Partition, rq.Group = name, int32(index), group
			var rs broker.MoveResult
			if err := f.call(cmd.Context(), "POST", "/v1/map/split", rq, &rs); err != nil {
				return err
			}
			return f.printMoves(cmd, rs)
		},
	}
	cmd.Flags().Int32VarP(&group, "group", "g", -1, "the group that takes the partition")
	return cmd
}

// printMoves tells what was moved and returns the failures.
func (f *opsFlags) printMoves(cmd *cobra.Command, rs broker.MoveResult) error {
	var failed []error
	for _, m := range rs.Moves {
		if m.Error != "" {
			failed = append(failed, fmt.Errorf("group %d: %s", m.Group, m.Error))
		}
	}
	if f.json {
		if err := printJSON(cmd.OutOrStdout(), rs); err != nil {
			return err
		}
		return errors.Join(failed...)
	}
	t := newTable(cmd.OutOrStdout(), "GROUP", "FROM", "TO", "EPOCH", "PAUSE")
	for _, m := range rs.Moves {
		if m.Error == "" {
			t.row(m.Group, m.From, m.To, m.Epoch, fmt.Sprintf("%.2f ms", m.PauseMillis))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	return errors.Join(failed...)
}

// topicPartition reads TOPIC or TOPIC:PARTITION; the partition is -1 when there is none.
func topicPartition(s string) (topic string, partition int, err error) {
	topic, p, ok := strings.Cut(s, ":")
	if topic == "" {
		return "", 0, fmt.Errorf("%q is not TOPIC[:PARTITION]", s)
	}
	if !ok {
		return topic, -1, nil
	}
	n, err := strconv.ParseUint(p, 10, 31)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not TOPIC[:PARTITION]", s)
	}
	return topic, int(n), nil
}

func metaCommand() *cobra.Command {
	var f opsFlags
	cmd := &cobra.Command{Use: "meta", Short: "Look at the map's keys", Args: noArgs}
	f.add(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:     "dump",
		Short:   "Print every key of the map store and its value, one JSON object a line",
		Example: "  skein meta dump | grep '/skein/pg/'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := f.stream(cmd.Context(), "GET", "/v1/meta", nil)
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(cmd.OutOrStdout(), body)
			return err
		},
	})
	return cmd
}
