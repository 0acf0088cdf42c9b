package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func groupCommand() *cobra.Command {
	var f kafkaFlags
	cmd := &cobra.Command{Use: "group", Short: "List, describe and delete consumer groups, reset their offsets", Args: noArgs}
	f.add(cmd)
	cmd.AddCommand(groupList(&f), groupDescribe(&f), groupDelete(&f), groupReset(&f))
	return cmd
}

func groupList(f *kafkaFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List groups",
		Example: "  skein group list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				groups, err := adm.ListGroups(ctx)
				if err != nil {
					return err
				}
				type row struct {
					Group    string `json:"group"`
					State    string `json:"state"`
					Protocol string `json:"protocolType"`
				}
				rows := []row{}
				for _, g := range groups.Sorted() {
					rows = append(rows, row{g.Group, g.State, g.ProtocolType})
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), rows)
				}
				tab := newTable(cmd.OutOrStdout(), "GROUP", "STATE", "PROTOCOL")
				for _, r := range rows {
					tab.row(r.Group, r.State, r.Protocol)
				}
				return tab.flush()
			})
		},
	}
}

// groupView is what `skein group describe` tells of one group.
type groupView struct {
	Group       string    `json:"group"`
	State       string    `json:"state"`
	Coordinator int32     `json:"coordinator"`
	Lags        []lagView `json:"partitions"`
}

type lagView struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"` // -1: none
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
	Client    string `json:"clientId,omitempty"`
	Host      string `json:"host,omitempty"`
}

func groupDescribe(f *kafkaFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "describe GROUP...",
		Short:   "Show members, committed offsets and lag",
		Example: "  skein group describe billing",
		Args:    wantArgs(1, -1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				lags, err := adm.Lag(ctx, names...)
				if err != nil {
					return err
				}
				views := []groupView{}
				for _, g := range lags.Sorted() {
					if err := g.Error(); err != nil {
						return fmt.Errorf("%s: %w", g.Group, err)
					}
					views = append(views, viewGroup(g))
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), views)
				}
				for _, v := range views {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  coordinator %d\n", v.Group, v.State, v.Coordinator)
					tab := newTable(cmd.OutOrStdout(), "TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "CLIENT", "HOST")
					for _, l := range v.Lags {
						tab.row(l.Topic, l.Partition, l.Committed, l.End, l.Lag, l.Member, l.Client, l.Host)
					}
					if err := tab.flush(); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func viewGroup(g kadm.DescribedGroupLag) groupView {
	v := groupView{Group: g.Group, State: g.State, Coordinator: g.Coordinator.NodeID, Lags: []lagView{}}
	for _, l := range g.Lag.Sorted() {
		row := lagView{Topic: l.Topic, Partition: l.Partition, Committed: l.Commit.At, End: l.End.Offset, Lag: l.Lag}
		if l.Member != nil {
			row.Member, row.Client, row.Host = l.Member.MemberID, l.Member.ClientID, l.Member.ClientHost
		}
		v.Lags = append(v.Lags, row)
	}
	return v
}

func groupDelete(f *kafkaFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "delete GROUP...",
		Short:   "Delete empty groups and their offsets",
		Example: "  skein group delete billing",
		Args:    wantArgs(1, -1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				rs, err := adm.DeleteGroups(ctx, names...)
				if err != nil {
					return err
				}
				var list []outcome
				for _, r := range rs.Sorted() {
					list = append(list, outcomeOf(r.Group, r.Err))
				}
				return f.outcomes(cmd, list)
			})
		},
	}
}

// resetTarget says where a group's offsets go: exactly one of its fields is set.
type resetTarget struct {
	earliest, latest bool
	offset           string
	datetime         string
	shift            string
}

func groupReset(f *kafkaFlags) *cobra.Command {
	var to resetTarget
	var topics []string
	var execute bool
	cmd := &cobra.Command{
		Use:   "reset-offsets GROUP",
		Short: "Move an inactive group's committed offsets",
		Long: `Moves the committed offsets of a group that has no members. Without --execute it only
prints what it would do. Targets beyond a partition's range are moved into it.`,
		Example: "  skein group reset-offsets billing --topic orders --to-earliest --execute\n" +
			"  skein group reset-offsets billing --topic orders --to-datetime 2026-11-01T00:00:00Z",
		Args: wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pick, err := to.picker()
			if err != nil {
				return usageError{err}
			}
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				moves, err := planReset(ctx, adm, args[0], topics, pick)
				if err != nil {
					return err
				}
				if execute {
					if err := commitReset(ctx, adm, args[0], moves); err != nil {
						return err
					}
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), moves)
				}
				tab := newTable(cmd.OutOrStdout(), "TOPIC", "PARTITION", "FROM", "TO")
				for _, m := range moves {
					tab.row(m.Topic, m.Partition, m.From, m.To)
				}
				return tab.flush()
			})
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&topics, "topic", "t", nil, "topic, repeatable; default: all that the group has offsets of")
	fl.BoolVar(&to.earliest, "to-earliest", false, "to the log start")
	fl.BoolVar(&to.latest, "to-latest", false, "to the end")
	fl.StringVar(&to.offset, "to-offset", "", "to this offset")
	fl.StringVar(&to.datetime, "to-datetime", "", "to the first record at or after this time (RFC 3339)")
	fl.StringVar(&to.shift, "shift-by", "", "by this many offsets from the committed one, may be negative")
	fl.BoolVar(&execute, "execute", false, "do it")
	return cmd
}

// resetMove is one partition's move; From is -1 where nothing was committed.
type resetMove struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
}

// picker computes the wanted offset of a partition from its committed offset and range.
type picker struct {
	millis int64 // >= 0: by time
	pick   func(committed, start, end int64) int64
}

func (t resetTarget) picker() (picker, error) {
	var found []picker
	add := func(pick func(committed, start, end int64) int64) {
		found = append(found, picker{millis: -1, pick: pick})
	}
	if t.earliest {
		add(func(_, start, _ int64) int64 { return start })
	}
	if t.latest {
		add(func(_, _, end int64) int64 { return end })
	}
	if t.offset != "" {
		n, err := strconv.ParseInt(t.offset, 10, 64)
		if err != nil || n < 0 {
			return picker{}, fmt.Errorf("to-offset: %q is not an offset", t.offset)
		}
		add(func(int64, int64, int64) int64 { return n })
	}
	if t.shift != "" {
		n, err := strconv.ParseInt(t.shift, 10, 64)
		if err != nil {
			return picker{}, fmt.Errorf("shift-by: %q is not a number", t.shift)
		}
		add(func(committed, start, _ int64) int64 { return max(committed, start) + n })
	}
	if t.datetime != "" {
		at, err := time.Parse(time.RFC3339, t.datetime)
		if err != nil {
			return picker{}, fmt.Errorf("to-datetime: %w", err)
		}
		found = append(found, picker{millis: at.UnixMilli()})
	}
	if len(found) != 1 {
		return picker{}, errors.New("give exactly one of --to-earliest, --to-latest, --to-offset, --to-datetime, --shift-by")
	}
	return found[0], nil
}

func planReset(ctx context.Context, adm *kadm.Client, group string, topics []string, p picker) ([]resetMove, error) {
	committed, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	if len(topics) == 0 {
		for t := range committed {
			topics = append(topics, t)
		}
		slices.Sort(topics)
	}
	if len(topics) == 0 {
		return nil, fmt.Errorf("group %s has no committed offsets: name the topics", group)
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	if err := listedError(starts, ends); err != nil {
		return nil, err
	}
	var byTime kadm.ListedOffsets
	if p.millis >= 0 {
		if byTime, err = adm.ListOffsetsAfterMilli(ctx, p.millis, topics...); err != nil {
			return nil, err
		}
	}
	var moves []resetMove
	starts.Each(func(s kadm.ListedOffset) {
		e, _ := ends.Lookup(s.Topic, s.Partition)
		m := resetMove{Topic: s.Topic, Partition: s.Partition, From: -1}
		if c, ok := committed.Lookup(s.Topic, s.Partition); ok {
			m.From = c.At
		}
		if p.millis >= 0 {
			at, _ := byTime.Lookup(s.Topic, s.Partition)
			m.To = at.Offset
		} else {
			m.To = p.pick(m.From, s.Offset, e.Offset)
		}
		m.To = min(max(m.To, s.Offset), e.Offset)
		moves = append(moves, m)
	})
	slices.SortFunc(moves, func(a, b resetMove) int {
		if a.Topic != b.Topic {
			return strings.Compare(a.Topic, b.Topic)
		}
		return int(a.Partition - b.Partition)
	})
	return moves, nil
}

// listedError names every partition of which an offset could not be listed, once.
func listedError(lists ...kadm.ListedOffsets) error {
	said := map[string]error{}
	for _, l := range lists {
		l.Each(func(o kadm.ListedOffset) {
			name := o.Topic
			if o.Partition >= 0 { // else of a topic that is not known
				name = fmt.Sprintf("%s-%d", o.Topic, o.Partition)
			}
			if o.Err != nil {
				said[name] = fmt.Errorf("%s: %w", name, o.Err)
			}
		})
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(said)) {
		problems = append(problems, said[name])
	}
	return errors.Join(problems...)
}

func commitReset(ctx context.Context, adm *kadm.Client, group string, moves []resetMove) error {
	described, err := adm.DescribeGroups(ctx, group)
	if err != nil {
		return err
	}
	if g := described[group]; len(g.Members) > 0 {
		return fmt.Errorf("group %s has %d members: stop them first", group, len(g.Members))
	}
	var offsets kadm.Offsets
	for _, m := range moves {
		offsets.AddOffset(m.Topic, m.Partition, m.To, -1)
	}
	rs, err := adm.CommitOffsets(ctx, group, offsets)
	if err != nil {
		return err
	}
	return rs.Error()
}
