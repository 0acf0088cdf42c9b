package goclient

import (
	"context"
	"errors"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func (f *franz) Admin() (adminSteps, error) {
	adm := kadm.NewClient(f.cl)
	a := franzTopics(adm)
	a.groups = func(ctx context.Context) ([]string, error) {
		list, err := adm.ListGroups(ctx)
		return list.Groups(), err
	}
	a.groupState = func(ctx context.Context, group string) (string, error) {
		list, err := adm.DescribeGroups(ctx, group)
		return list[group].State, errors.Join(err, list[group].Err)
	}
	a.deleteGroup = func(ctx context.Context, group string) error {
		_, err := adm.DeleteGroup(ctx, group)
		return err
	}
	a.deleteRecords = func(ctx context.Context, topic string, before int64) error {
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: topic, At: before})
		resp, err := adm.DeleteRecords(ctx, offsets)
		if err == nil {
			err = resp.Error()
		}
		if r, ok := resp.Lookup(topic, 0); err == nil && (!ok || r.LowWatermark != before) {
			err = errors.New("low watermark " + strconv.FormatInt(r.LowWatermark, 10))
		}
		return err
	}
	return a, nil
}

func franzTopics(adm *kadm.Client) adminSteps {
	return adminSteps{
		clusterBrokers: func(ctx context.Context) (int, error) {
			m, err := adm.BrokerMetadata(ctx)
			return len(m.Brokers), err
		},
		createTopic: func(ctx context.Context, topic string, n int, configs map[string]string) error {
			in := map[string]*string{}
			for k, v := range configs {
				in[k] = &v
			}
			_, err := adm.CreateTopic(ctx, int32(n), 1, in, topic)
			if errors.Is(err, kerr.TopicAlreadyExists) {
				return errExists
			}
			return err
		},
		deleteTopic: func(ctx context.Context, topic string) error {
			_, err := adm.DeleteTopic(ctx, topic)
			return err
		},
		topics: func(ctx context.Context) (map[string]int, error) {
			list, err := adm.ListTopics(ctx)
			out := map[string]int{}
			for name, t := range list {
				for _, p := range t.Partitions {
					if p.Err == nil && p.Leader >= 0 {
						out[name]++
					}
				}
			}
			return out, err
		},
		addPartitions: func(ctx context.Context, topic string, total int) error {
			resp, err := adm.UpdatePartitions(ctx, total, topic)
			return errors.Join(err, resp.Error())
		},
		config: func(ctx context.Context, topic, key string) (string, error) {
			resp, err := adm.DescribeTopicConfigs(ctx, topic)
			if err != nil {
				return "", err
			}
			rc, err := resp.On(topic, nil)
			for _, c := range rc.Configs {
				if c.Key == key {
					return c.MaybeValue(), nil
				}
			}
			return "", err
		},
		setConfig: func(ctx context.Context, topic, key, value string) error {
			resp, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, topic)
			if err == nil && len(resp) > 0 {
				err = resp[0].Err
			}
			return err
		},
	}
}
