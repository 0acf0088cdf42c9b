package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func topicCommand() *cobra.Command {
	var f kafkaFlags
	cmd := &cobra.Command{Use: "topic", Short: "Create, list, describe, alter and delete topics", Args: noArgs}
	f.add(cmd)
	cmd.AddCommand(topicCreate(&f), topicList(&f), topicDescribe(&f), topicAlter(&f), topicDelete(&f))
	return cmd
}

func topicCreate(f *kafkaFlags) *cobra.Command {
	var partitions int32
	var configs []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "create TOPIC...",
		Short:   "Create topics",
		Example: "  skein topic create orders --partitions 12 --config retention.ms=86400000",
		Args:    wantArgs(1, -1),
		RunE: func(cmd *cobra.Command, topics []string) error {
			set, err := parseConfigs(configs)
			if err != nil {
				return usageError{err}
			}
			if partitions < 1 && cmd.Flags().Changed("partitions") && partitions != -1 {
				return usageError{fmt.Errorf("partitions: %d is not a number of partitions", partitions)}
			}
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				create := adm.CreateTopics
				if dryRun {
					create = adm.ValidateCreateTopics
				}
				rs, err := create(ctx, partitions, -1, set, topics...)
				if err != nil {
					return err
				}
				var list []outcome
				for _, r := range rs.Sorted() {
					list = append(list, outcomeOf(r.Topic, withMessage(r.Err, r.ErrMessage)))
				}
				return f.outcomes(cmd, list)
			})
		},
	}
	cmd.Flags().Int32VarP(&partitions, "partitions", "p", -1, "partitions; -1: the broker's num.partitions")
	cmd.Flags().StringArrayVarP(&configs, "config", "c", nil, "topic config NAME=VALUE, repeatable")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check")
	return cmd
}

func topicList(f *kafkaFlags) *cobra.Command {
	var internal bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List topics",
		Example: "  skein topic list --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				topics, err := adm.ListTopicsWithInternal(ctx)
				if err != nil {
					return err
				}
				type row struct {
					Name       string `json:"name"`
					ID         string `json:"id"`
					Partitions int    `json:"partitions"`
					Internal   bool   `json:"internal"`
				}
				rows := []row{}
				for _, t := range topics.Sorted() {
					if internal || !t.IsInternal {
						rows = append(rows, row{t.Topic, topicID(t.ID), len(t.Partitions), t.IsInternal})
					}
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), rows)
				}
				tab := newTable(cmd.OutOrStdout(), "TOPIC", "PARTITIONS", "ID")
				for _, r := range rows {
					tab.row(r.Name, r.Partitions, r.ID)
				}
				return tab.flush()
			})
		},
	}
	cmd.Flags().BoolVar(&internal, "internal", false, "internal topics too")
	return cmd
}

// topicView is what `skein topic describe` tells of one topic.
type topicView struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Partitions []partitionView   `json:"partitions"`
	Configs    map[string]string `json:"configs"` // set at the topic only
}

type partitionView struct {
	Index    int32 `json:"index"`
	Leader   int32 `json:"leader"`
	Epoch    int32 `json:"leaderEpoch"`
	LogStart int64 `json:"logStart"`
	End      int64 `json:"end"`
}

func topicDescribe(f *kafkaFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "describe TOPIC...",
		Short:   "Show partitions, leaders, offsets and the configs set on topics",
		Example: "  skein topic describe orders",
		Args:    wantArgs(1, -1),
		RunE: func(cmd *cobra.Command, topics []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				views, err := describeTopics(ctx, adm, topics)
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), views)
				}
				for _, v := range views {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  id %s\n", v.Name, v.ID)
					for _, k := range slices.Sorted(maps.Keys(v.Configs)) {
						fmt.Fprintf(cmd.OutOrStdout(), "  %s=%s\n", k, v.Configs[k])
					}
					tab := newTable(cmd.OutOrStdout(), "PARTITION", "LEADER", "EPOCH", "START", "END")
					for _, p := range v.Partitions {
						tab.row(p.Index, p.Leader, p.Epoch, p.LogStart, p.End)
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

func describeTopics(ctx context.Context, adm *kadm.Client, topics []string) ([]topicView, error) {
	details, err := adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, err
	}
	var unknown []error
	for _, t := range details.Sorted() {
		if t.Err != nil {
			unknown = append(unknown, fmt.Errorf("%s: %w", t.Topic, t.Err))
		}
	}
	if err := errors.Join(unknown...); err != nil {
		return nil, err
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	configs, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil, err
	}
	var views []topicView
	for _, t := range details.Sorted() {
		v := topicView{Name: t.Topic, ID: topicID(t.ID), Configs: map[string]string{}}
		for _, p := range t.Partitions.Sorted() {
			start, _ := starts.Lookup(t.Topic, p.Partition)
			end, _ := ends.Lookup(t.Topic, p.Partition)
			if err := errors.Join(start.Err, end.Err); err != nil {
				return nil, fmt.Errorf("offsets of %s-%d: %w", t.Topic, p.Partition, err)
			}
			v.Partitions = append(v.Partitions, partitionView{p.Partition, p.Leader, p.LeaderEpoch, start.Offset, end.Offset})
		}
		rc, err := configs.On(t.Topic, nil)
		if err != nil {
			return nil, err
		}
		for _, c := range rc.Configs {
			if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
				v.Configs[c.Key] = c.MaybeValue()
			}
		}
		views = append(views, v)
	}
	return views, nil
}

func topicAlter(f *kafkaFlags) *cobra.Command {
	var partitions int
	var configs, remove []string
	cmd := &cobra.Command{
		Use:     "alter TOPIC",
		Short:   "Change a topic's configs, or add partitions",
		Example: "  skein topic alter orders --config retention.ms=3600000 --remove max.message.bytes\n  skein topic alter orders --partitions 24",
		Args:    wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := parseConfigs(configs)
			if err != nil {
				return usageError{err}
			}
			var changes []kadm.AlterConfig
			for _, k := range slices.Sorted(maps.Keys(set)) {
				changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: set[k]})
			}
			for _, k := range remove {
				changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
			}
			if cmd.Flags().Changed("partitions") && partitions < 1 {
				return usageError{fmt.Errorf("partitions: %d is not a number of partitions", partitions)}
			}
			if len(changes) == 0 && partitions == 0 {
				return usageError{errors.New("nothing to alter: give --config, --remove or --partitions")}
			}
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return alterTopic(ctx, adm, args[0], changes, partitions)
			})
		},
	}
	cmd.Flags().IntVarP(&partitions, "partitions", "p", 0, "grow to this many partitions")
	cmd.Flags().StringArrayVarP(&configs, "config", "c", nil, "set NAME=VALUE, repeatable")
	cmd.Flags().StringArrayVar(&remove, "remove", nil, "config to set back to its default, repeatable")
	return cmd
}

func alterTopic(ctx context.Context, adm *kadm.Client, topic string, changes []kadm.AlterConfig, partitions int) error {
	if partitions > 0 { // asked first, so that a refusal leaves the configs as they were
		rs, err := adm.ValidateUpdatePartitions(ctx, partitions, topic)
		if err == nil {
			err = partitionsError(rs)
		}
		if err != nil {
			return err
		}
	}
	if len(changes) > 0 {
		rs, err := adm.AlterTopicConfigs(ctx, changes, topic)
		if err != nil {
			return err
		}
		for _, r := range rs {
			if r.Err != nil {
				return markRefused(withMessage(r.Err, r.ErrMessage))
			}
		}
	}
	if partitions > 0 {
		rs, err := adm.UpdatePartitions(ctx, partitions, topic)
		if err != nil {
			return err
		}
		return partitionsError(rs)
	}
	return nil
}

func partitionsError(rs kadm.CreatePartitionsResponses) error {
	for _, r := range rs {
		if r.Err != nil {
			return markRefused(withMessage(r.Err, r.ErrMessage))
		}
	}
	return nil
}

func topicDelete(f *kafkaFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "delete TOPIC...",
		Short:   "Delete topics and their data",
		Example: "  skein topic delete orders",
		Args:    wantArgs(1, -1),
		RunE: func(cmd *cobra.Command, topics []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				rs, err := adm.DeleteTopics(ctx, topics...)
				if err != nil {
					return err
				}
				var list []outcome
				for _, r := range rs.Sorted() {
					list = append(list, outcomeOf(r.Topic, withMessage(r.Err, r.ErrMessage)))
				}
				return f.outcomes(cmd, list)
			})
		},
	}
}

// parseConfigs reads NAME=VALUE pairs.
func parseConfigs(list []string) (map[string]*string, error) {
	out := map[string]*string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("config %q: want NAME=VALUE", kv)
		}
		out[k] = &v
	}
	return out, nil
}

func withMessage(err error, message string) error {
	if err == nil || message == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, message)
}
