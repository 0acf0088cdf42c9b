package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// DeleteTopics (key 20), v0 to v6.
//
// A topic is gone from the map, for every client of every broker, when the answer comes; its bytes go in the background.
//
//	v1  throttle time   v3  TOPIC_DELETION_DISABLED   v4  flexible   v5  error messages   v6  by topic id
var deleteTopics = handler{
	key: 20, name: "DeleteTopics", min: 0, max: 6,
	handle: (*Broker).handleDeleteTopics,
}

func (b *Broker) handleDeleteTopics(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DeleteTopicsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := withRequestTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	topics := req.Topics
	if rq.version < 6 {
		topics = make([]kmsg.DeleteTopicsRequestTopic, len(req.TopicNames))
		for i := range topics {
			topics[i].Topic = &req.TopicNames[i]
		}
	}
	doomed := b.planDeletes(topics)
	var work errgroup.Group
	work.SetLimit(createsInFlight)
	for i := range doomed {
		if d := &doomed[i]; d.err == nil {
			work.Go(func() error {
				d.err = b.deleteTopic(ctx, d, rq.version)
				return nil
			})
		}
	}
	_ = work.Wait() // no function returns an error: each topic has its own
	for i := range doomed {
		d := &doomed[i]
		out := kmsg.NewDeleteTopicsResponseTopic()
		if d.name != "" {
			out.Topic = &d.name
		}
		out.TopicID, out.ErrorCode, out.ErrorMessage = d.id, errorCode(d.err), errorMessage(d.err)
		resp.Topics = append(resp.Topics, out)
	}
	b.awaitPeers(ctx, b.refresh().Revision())
	return resp
}

// doomedTopic is a topic to delete, as asked for and as found.
type doomedTopic struct {
	name string
	id   ident.Topic
	err  error
}

// planDeletes finds the topics of a request. One that is named in any way twice is refused and appears once.
func (b *Broker) planDeletes(topics []kmsg.DeleteTopicsRequestTopic) []doomedTopic {
	m := b.store.Map()
	names := make(map[string]int)
	ids := make(map[ident.Topic]int)
	for i := range topics {
		if t := &topics[i]; t.Topic != nil && *t.Topic != "" {
			names[*t.Topic]++
		} else if t.TopicID != ([16]byte{}) {
			ids[t.TopicID]++
		}
	}
	var out []doomedTopic
	done := make(map[string]bool)
	for i := range topics {
		t := &topics[i]
		d := doomedTopic{id: t.TopicID}
		if t.Topic != nil {
			d.name = *t.Topic
		}
		key := d.name + "\x00" + string(d.id[:])
		if done[key] {
			continue
		}
		done[key] = true
		rec := m.Topic(d.name)
		switch {
		case d.name != "" && d.id != ident.Topic{}:
			d.err = refuse(protocol.CodeInvalidRequest, "You may not specify both topic name and topic id.")
		case d.name != "" && names[d.name] > 1:
			d.err = refuse(protocol.CodeInvalidRequest, "Duplicate topic name.")
		case d.name != "" && rec != nil && ids[rec.ID] > 0:
			d.id = rec.ID
			d.err = refuse(protocol.CodeInvalidRequest, "The provided topic name maps to an ID that was already supplied.")
		case d.name == "" && d.id == ident.Topic{}:
			d.err = refuse(protocol.CodeInvalidRequest, "Neither topic name nor id were specified.")
		case d.name == "" && ids[d.id] > 1:
			d.err = refuse(protocol.CodeInvalidRequest, "Duplicate topic id.")
		case d.name == "":
			if t := m.TopicByID(d.id); t != nil && names[t.Name] > 0 {
				continue // answered under its name
			}
		}
		out = append(out, d)
	}
	return out
}

// deleteTopic deletes one topic and completes its name and id.
func (b *Broker) deleteTopic(ctx context.Context, d *doomedTopic, version int16) error {
	if !b.conf().DeleteTopics { // Kafka says so of topics that do not exist, too
		code := protocol.CodeTopicDeletionDisabled
		if version < 3 {
			code = protocol.CodeInvalidRequest
		}
		return refuse(code, "Topic deletion is disabled.")
	}
	m := b.store.Map()
	rec := m.Topic(d.name)
	if d.name == "" {
		if rec = m.TopicByID(d.id); rec == nil {
			return refuse(protocol.CodeUnknownTopicID, "This server does not host this topic ID.")
		}
	}
	switch {
	case isInternal(d.name):
		return refuse(protocol.CodePolicyViolation, "Topic '%s' is internal and cannot be deleted.", d.name)
	case rec == nil:
		return refuse(protocol.CodeUnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	err := b.store.DeleteTopic(ctx, rec.Name, rec.ID)
	if errors.Is(err, queuemapper.ErrNotFound) {
		return refuse(protocol.CodeUnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	if err == nil {
		d.name, d.id = rec.Name, rec.ID
	}
	return err
}
