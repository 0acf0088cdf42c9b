package goclient

import (
	"context"
	"errors"

	"github.com/segmentio/kafka-go"
)

// Admin: kafka-go has no DeleteRecords.
func (s *segmentio) Admin() (adminSteps, error) {
	steps := s.adminTopics()
	steps.config = func(ctx context.Context, topic, key string) (string, error) {
		resp, err := s.cl.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{key}}}})
		if err != nil {
			return "", err
		}
		for _, r := range resp.Resources {
			for _, e := range r.ConfigEntries {
				if e.ConfigName == key {
					return e.ConfigValue, r.Error
				}
			}
			err = errors.Join(err, r.Error)
		}
		return "", err
	}
	steps.setConfig = func(ctx context.Context, topic, key, value string) error {
		resp, err := s.cl.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, Configs: []kafka.IncrementalAlterConfigsRequestConfig{
				{Name: key, Value: value, ConfigOperation: kafka.ConfigOperationSet}}}}})
		if err != nil {
			return err
		}
		for _, r := range resp.Resources {
			err = errors.Join(err, r.Error)
		}
		return err
	}
	steps.groups = func(ctx context.Context) ([]string, error) {
		resp, err := s.cl.ListGroups(ctx, &kafka.ListGroupsRequest{})
		if err != nil {
			return nil, err
		}
		var out []string
		for _, g := range resp.Groups {
			out = append(out, g.GroupID)
		}
		return out, resp.Error
	}
	steps.groupState = func(ctx context.Context, group string) (string, error) {
		resp, err := s.cl.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
		if err != nil || len(resp.Groups) != 1 {
			return "", err
		}
		return resp.Groups[0].GroupState, resp.Groups[0].Error
	}
	steps.deleteGroup = func(ctx context.Context, group string) error {
		resp, err := s.cl.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
		if err != nil {
			return err
		}
		return resp.Errors[group]
	}
	return steps, nil
}

func (s *segmentio) adminTopics() adminSteps {
	return adminSteps{
		clusterBrokers: func(ctx context.Context) (int, error) {
			m, err := s.cl.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}})
			if err != nil {
				return 0, err
			}
			return len(m.Brokers), nil
		},
		createTopic: func(ctx context.Context, topic string, n int, configs map[string]string) error {
			tc := kafka.TopicConfig{Topic: topic, NumPartitions: n, ReplicationFactor: 1}
			for k, v := range configs {
				tc.ConfigEntries = append(tc.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
			}
			resp, err := s.cl.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{tc}})
			if err != nil {
				return err
			}
			if err := resp.Errors[topic]; errors.Is(err, kafka.TopicAlreadyExists) {
				return errExists
			} else if err != nil {
				return err
			}
			return nil
		},
		deleteTopic: func(ctx context.Context, topic string) error {
			resp, err := s.cl.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
			if err != nil {
				return err
			}
			return resp.Errors[topic]
		},
		topics: func(ctx context.Context) (map[string]int, error) {
			m, err := s.cl.Metadata(ctx, &kafka.MetadataRequest{})
			if err != nil {
				return nil, err
			}
			out := map[string]int{}
			for _, t := range m.Topics {
				for _, p := range t.Partitions {
					if p.Error == nil && p.Leader.Port != 0 {
						out[t.Name]++
					}
				}
			}
			return out, nil
		},
		addPartitions: func(ctx context.Context, topic string, total int) error {
			resp, err := s.cl.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: int32(total)}}})
			if err != nil {
				return err
			}
			return resp.Errors[topic]
		},
	}
}
