package broker

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
	"github.com/skeinmq/skein/queuemapper"
)

// DescribeLogDirs (key 35), v0 to v5.
//
// One row for each of the broker's logs, by the directory that holds it. A partition is listed in every log that holds
// bytes of it, with those bytes; the log that takes its appends lists it even when it is empty. Nothing ever lags, and no
// directory is cordoned.
//
//	v2  flexible   v3  error for the whole   v4  total and usable bytes of the volume   v5  cordoned (KIP-1066)
var describeLogDirs = handler{
	key: 35, name: "DescribeLogDirs", min: 0, max: 5,
	handle: (*Broker).handleDescribeLogDirs,
}

func (b *Broker) handleDescribeLogDirs(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	sizes := b.logSizes(req.Topics)
	for i, l := range b.cfg.Logs {
		id := l.Recovered().ID
		out := kmsg.NewDescribeLogDirsResponseDir()
		out.Dir = b.directory(i, id)
		if out.Dir != id.String() {
			if space, err := vfs.OS().Space(out.Dir); err == nil {
				out.TotalBytes, out.UsableBytes = space.Total, space.Available
			}
		}
		out.Topics = sizes[id]
		resp.Dirs = append(resp.Dirs, out)
	}
	return resp
}

// directory is where the i-th log of this broker lies, as tools are shown it and name it, absolute as in Kafka: its id
// if that is not known.
func (b *Broker) directory(i int, id ident.Log) string {
	if dirs := splitTrimmed(b.cfg.Static["log.dirs"]); len(dirs) == len(b.cfg.Logs) {
		if dir, err := filepath.Abs(dirs[i]); err == nil {
			return dir
		}
	}
	return id.String()
}

// logSizes measures partitions in each log of this broker; nil topics means all.
func (b *Broker) logSizes(topics []kmsg.DescribeLogDirsRequestTopic) map[ident.Log][]kmsg.DescribeLogDirsResponseDirTopic {
	out := make(map[ident.Log][]kmsg.DescribeLogDirsResponseDirTopic)
	m := b.store.Map()
	if topics == nil {
		for t := range b.topics() {
			b.addTopicSizes(m, out, t, t.partitions())
		}
		return out
	}
	seen := make(map[*partition]bool) // however often a request names it, a partition is listed once
	for i := range topics {
		t := b.topic(topics[i].Topic)
		if t == nil {
			continue
		}
		var parts []*partition
		for _, index := range topics[i].Partitions {
			if p := t.partition(index); p != nil && !seen[p] {
				seen[p] = true
				parts = append(parts, p)
			}
		}
		b.addTopicSizes(m, out, t, parts)
	}
	return out
}

// addTopicSizes measures partitions of one topic.
func (b *Broker) addTopicSizes(m *queuemapper.Map, out map[ident.Log][]kmsg.DescribeLogDirsResponseDirTopic, t *topic, parts []*partition) {
	at := make(map[ident.Log]*kmsg.DescribeLogDirsResponseDirTopic)
	for _, p := range parts {
		bytes := make(map[ident.Log]int64, 1)
		if run := p.open.Load(); run != nil {
			bytes[run.log.id] = run.queue.Size()
		}
		for _, r := range m.Runs(t.newest(), p.index) {
			host := b.hosted[r.Log]
			if host == nil || r.Open {
				continue
			}
			if q, ok := host.log.Sealed(r.Generation, p.id()); ok {
				bytes[r.Log] += q.Size()
			}
		}
		for id, n := range bytes {
			row := at[id]
			if row == nil {
				fresh := kmsg.NewDescribeLogDirsResponseDirTopic()
				row = &fresh
				row.Topic, at[id] = strings.Clone(t.name), row
			}
			part := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			part.Partition, part.Size = p.index, n
			row.Partitions = append(row.Partitions, part)
		}
	}
	for id, row := range at {
		out[id] = append(out[id], *row)
	}
}
