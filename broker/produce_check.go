package broker

import (
	"errors"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/protocol/record"
)

// Versions of Produce at which what a batch may be changes.
const (
	produceFormat2 = 3 // older versions carry the old formats
	produceZstd    = 7
	// produceTopicIDs is the version from which on topics are named by id.
	produceTopicIDs = 13
)

// check validates the records for one partition against the topic's configs and returns the batch to append. If they
// are refused, or there is nothing to append, out says so and ok is false.
func (j *produceJob) check(conf *topicConfig, records []byte, out *protocol.ProduceResponsePartition, slot *produceSlot, now int64) (batch commitlog.Batch, ok bool) {
	rules := &j.rules // in the job, as it escapes
	*rules = conf.rules
	rules.Now = now
	rules.OldFormats = j.version < produceFormat2
	rules.AllowZstd = j.version >= produceZstd
	checked, err := record.Validate(records, rules)
	if errors.Is(err, record.ErrEmpty) { // nothing to append, which is fine
		out.BaseOffset = -1
		return commitlog.Batch{}, false
	}
	if err != nil {
		j.refuse(out, codeOf(err), "")
		if e, ok := errors.AsType[*record.Error](err); ok {
			out.Message = e.Reason
			for _, r := range e.Records {
				out.RecordErrors = append(out.RecordErrors, protocol.RecordError{Index: r.Index, Message: r.Reason})
			}
		}
		return commitlog.Batch{}, false
	}
	if checked.Attributes.Transactional() {
		j.refuse(out, protocol.CodeTransactionalIDAuthorizationFailed, "transactions are not served yet")
		return commitlog.Batch{}, false
	}
	if rules.LogAppendTime {
		slot.appendTime = now
	}
	return commitlog.Batch{
		Data:          checked.Bytes,
		Records:       checked.LastOffsetDelta + 1,
		MaxTimestamp:  checked.MaxTimestamp,
		ProducerID:    checked.ProducerID,
		ProducerEpoch: checked.ProducerEpoch,
		BaseSequence:  checked.BaseSequence,
	}, true
}
