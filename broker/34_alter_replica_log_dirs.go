package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// AlterReplicaLogDirs (key 34), v1 to v2.
//
// A partition's records stay in the log that they were written to, so there is nothing to move between the directories
// of a broker. What is asked to be where it is, is: kafka-reassign-partitions asks that of each broker when it rolls back to
// an assignment that it printed. The partition of another owner is REPLICA_NOT_AVAILABLE (tools try again for a while: it
// may be on its way), a directory that this broker does not have LOG_DIR_NOT_FOUND, and another one of its own
// INVALID_REPLICA_ASSIGNMENT.
//
//	v2  flexible
var alterReplicaLogDirs = handler{
	key: 34, name: "AlterReplicaLogDirs", min: 1, max: 2,
	handle: (*Broker).handleAlterReplicaLogDirs,
}

func (b *Broker) handleAlterReplicaLogDirs(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.AlterReplicaLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	at := make(map[string]int)
	for i := range req.Dirs {
		for j := range req.Dirs[i].Topics {
			t := &req.Dirs[i].Topics[j]
			row, ok := at[t.Topic]
			if !ok {
				row, at[t.Topic] = len(resp.Topics), len(resp.Topics)
				out := kmsg.NewAlterReplicaLogDirsResponseTopic()
				out.Topic = t.Topic
				resp.Topics = append(resp.Topics, out)
			}
			for _, index := range t.Partitions {
				p := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
				p.Partition, p.ErrorCode = index, int16(b.inDirectory(req.Dirs[i].Dir, t.Topic, index))
				resp.Topics[row].Partitions = append(resp.Topics[row].Partitions, p)
			}
		}
	}
	return resp
}

// inDirectory says whether a partition takes its appends in a directory of this broker.
func (b *Broker) inDirectory(dir, name string, index int32) protocol.Code {
	known := false
	for i, l := range b.cfg.Logs {
		known = known || b.directory(i, l.Recovered().ID) == dir
	}
	if !known {
		return protocol.CodeLogDirNotFound
	}
	t := b.topic(name)
	if t == nil {
		return protocol.CodeUnknownTopicOrPartition
	}
	p := t.partition(index)
	if p == nil {
		return protocol.CodeUnknownTopicOrPartition
	}
	run := p.open.Load()
	if run == nil {
		return protocol.CodeReplicaNotAvailable
	}
	for i, l := range b.cfg.Logs {
		if id := l.Recovered().ID; id == run.log.id && b.directory(i, id) == dir {
			return protocol.CodeNone
		}
	}
	return protocol.CodeInvalidReplicaAssignment
}
