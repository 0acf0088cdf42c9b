package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/skeinmq/skein/broker/coordinator"
	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/protocol/record"
	"github.com/skeinmq/skein/queuemapper"
)

// errorCode is the one translator to Kafka's error codes. A refusal in the chain says which code it means.
func errorCode(err error) int16 { return int16(codeOf(err)) }

// codeOf is errorCode with the code's own type.
func codeOf(err error) protocol.Code {
	if err == nil {
		return protocol.CodeNone
	}
	if code, ok := errors.AsType[*refusal](err); ok {
		return code.code
	}
	for _, known := range groupCodes {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	switch {
	case errors.Is(err, commitlog.ErrNotOpen), errors.Is(err, commitlog.ErrFrozen), errors.Is(err, commitlog.ErrClosed),
		errors.Is(err, commitlog.ErrFenced):
		return protocol.CodeNotLeaderOrFollower
	case errors.Is(err, errShutdown), errors.Is(err, errConnEnded), errors.Is(err, errPeerGone):
		return protocol.CodeNotLeaderOrFollower // cut off in the middle: ask somebody else
	case errors.Is(err, commitlog.ErrPoisoned), errors.Is(err, commitlog.ErrFull):
		return protocol.CodeKafkaStorageError
	case errors.Is(err, runs.ErrAway), errors.Is(err, runs.ErrMissing):
		return protocol.CodeKafkaStorageError
	case errors.Is(err, commitlog.ErrCorrupt): // not one that clients retry in silence: asking again does not mend the disk
		return protocol.CodeCorruptMessage
	case errors.Is(err, commitlog.ErrOutOfRange):
		return protocol.CodeOffsetOutOfRange
	case errors.Is(err, commitlog.ErrSequence):
		return protocol.CodeOutOfOrderSequenceNumber
	case errors.Is(err, commitlog.ErrProducerEpoch):
		return protocol.CodeInvalidProducerEpoch
	case errors.Is(err, record.ErrCorrupt):
		return protocol.CodeCorruptMessage
	case errors.Is(err, record.ErrInvalid):
		return protocol.CodeInvalidRecord
	case errors.Is(err, record.ErrTimestamp):
		return protocol.CodeInvalidTimestamp
	case errors.Is(err, record.ErrTooLarge):
		return protocol.CodeMessageTooLarge
	case errors.Is(err, record.ErrCodec):
		return protocol.CodeUnsupportedCompressionType
	case errors.Is(err, record.ErrFormat):
		return protocol.CodeUnsupportedForMessageFormat
	case errors.Is(err, queuemapper.ErrExists):
		return protocol.CodeTopicAlreadyExists
	case errors.Is(err, queuemapper.ErrNotFound):
		return protocol.CodeUnknownTopicOrPartition
	case errors.Is(err, controller.ErrFenced), errors.Is(err, controller.ErrNotLeader), errors.Is(err, controller.ErrUnknown),
		errors.Is(err, controller.ErrClosed):
		return protocol.CodeNotCoordinator
	case errors.Is(err, queuemapper.ErrConflict), errors.Is(err, queuemapper.ErrUnknown),
		errors.Is(err, queuemapper.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return protocol.CodeRequestTimedOut
	case errors.Is(err, context.Canceled):
		return protocol.CodeRequestTimedOut
	default:
		return protocol.CodeUnknownServerError
	}
}

// groupCodes are the codes of what group coordinators refuse.
var groupCodes = [...]struct {
	err  error
	code protocol.Code
}{
	{coordinator.ErrLoading, protocol.CodeCoordinatorLoadInProgress},
	{coordinator.ErrCommitSize, protocol.CodeInvalidCommitOffsetSize},
	{group.ErrCoordinatorNotAvailable, protocol.CodeCoordinatorNotAvailable},
	{group.ErrNotCoordinator, protocol.CodeNotCoordinator},
	{group.ErrUnknownMember, protocol.CodeUnknownMemberID},
	{group.ErrIllegalGeneration, protocol.CodeIllegalGeneration},
	{group.ErrInconsistentProtocol, protocol.CodeInconsistentGroupProtocol},
	{group.ErrInvalidSessionTimeout, protocol.CodeInvalidSessionTimeout},
	{group.ErrInvalidGroup, protocol.CodeInvalidGroupID},
	{group.ErrRebalanceInProgress, protocol.CodeRebalanceInProgress},
	{group.ErrMemberIDRequired, protocol.CodeMemberIDRequired},
	{group.ErrFencedInstance, protocol.CodeFencedInstanceID},
	{group.ErrMaxSize, protocol.CodeGroupMaxSizeReached},
	{group.ErrNonEmpty, protocol.CodeNonEmptyGroup},
	{group.ErrGroupNotFound, protocol.CodeGroupIDNotFound},
	{group.ErrSubscribed, protocol.CodeGroupSubscribedToTopic},
	{group.ErrMetadataTooLarge, protocol.CodeUnknownServerError},
}

// refusal is the error of a handler that knows which code its client must get.
type refusal struct {
	code protocol.Code
	text string
}

func (r *refusal) Error() string { return r.text }

// refuse returns an error that reaches the client as code, with a text that does.
func refuse(code protocol.Code, format string, args ...any) error {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

// refuseCode is refuse with the code's own text.
func refuseCode(code protocol.Code) error { return &refusal{code: code, text: code.Message()} }

// errorMessage is the text that goes with errorCode, nil for none. Text of unexpected errors stays in our log.
func errorMessage(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	if codeOf(err) == protocol.CodeUnknownServerError {
		s = protocol.CodeUnknownServerError.Message()
	}
	return &s
}
