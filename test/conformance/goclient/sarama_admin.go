package goclient

import (
	"context"
	"errors"

	"github.com/IBM/sarama"
)

func (s *saramaClient) Admin() (adminSteps, error) {
	adm, err := sarama.NewClusterAdminFromClient(s.cl)
	if err != nil {
		return adminSteps{}, err
	}
	steps := saramaTopics(s.cl, adm)
	steps.config = func(_ context.Context, topic, key string) (string, error) {
		entries, err := adm.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{key}})
		for _, e := range entries {
			if e.Name == key {
				return e.Value, nil
			}
		}
		return "", err
	}
	steps.setConfig = func(_ context.Context, topic, key, value string) error {
		return adm.IncrementalAlterConfig(sarama.TopicResource, topic,
			map[string]sarama.IncrementalAlterConfigsEntry{key: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}}, false)
	}
	steps.groups = func(context.Context) ([]string, error) {
		list, err := adm.ListConsumerGroups()
		var out []string
		for name := range list {
			out = append(out, name)
		}
		return out, err
	}
	steps.groupState = func(_ context.Context, group string) (string, error) {
		list, err := adm.DescribeConsumerGroups([]string{group})
		if err != nil || len(list) != 1 {
			return "", err
		}
		return list[0].State, nil
	}
	steps.deleteGroup = func(_ context.Context, group string) error { return adm.DeleteConsumerGroup(group) }
	return steps, nil
}

func saramaTopics(cl sarama.Client, adm sarama.ClusterAdmin) adminSteps {
	return adminSteps{
		clusterBrokers: func(context.Context) (int, error) {
			brokers, _, err := adm.DescribeCluster()
			return len(brokers), err
		},
		createTopic: func(_ context.Context, topic string, n int, configs map[string]string) error {
			detail := &sarama.TopicDetail{NumPartitions: int32(n), ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
			for k, v := range configs {
				detail.ConfigEntries[k] = &v
			}
			err := adm.CreateTopic(topic, detail, false)
			if errors.Is(err, sarama.ErrTopicAlreadyExists) {
				return errExists
			}
			return err
		},
		deleteTopic: func(_ context.Context, topic string) error { return adm.DeleteTopic(topic) },
		topics: func(context.Context) (map[string]int, error) {
			list, err := adm.ListTopics()
			if err != nil {
				return nil, err
			}
			out := map[string]int{}
			for name := range list {
				out[name] = 0
			}
			// ListTopics counts partitions; the leaders are in the metadata.
			if err := cl.RefreshMetadata(); err != nil {
				return nil, err
			}
			for name, detail := range list {
				for p := range detail.NumPartitions {
					if _, err := cl.Leader(name, p); err == nil {
						out[name]++
					}
				}
			}
			return out, nil
		},
		addPartitions: func(_ context.Context, topic string, total int) error {
			return adm.CreatePartitions(topic, int32(total), nil, false)
		},
		deleteRecords: func(_ context.Context, topic string, before int64) error {
			return adm.DeleteRecords(topic, map[int32]int64{0: before})
		},
	}
}
