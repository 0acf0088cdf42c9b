package group

import "errors"

// The refusals of a coordinator. Each is one Kafka error of the same name; the broker
// translates.
var (
	ErrCoordinatorNotAvailable = errors.New("coordinator not available")
	ErrNotCoordinator          = errors.New("not the coordinator")
	ErrUnknownMember           = errors.New("unknown member id")
	ErrIllegalGeneration       = errors.New("illegal generation")
	ErrInconsistentProtocol    = errors.New("inconsistent group protocol")
	ErrInvalidSessionTimeout   = errors.New("invalid session timeout")
	ErrInvalidGroup            = errors.New("invalid group id")
	ErrRebalanceInProgress     = errors.New("rebalance in progress")
	ErrMemberIDRequired        = errors.New("member id required")
	ErrFencedInstance          = errors.New("group instance id fenced")
	ErrMaxSize                 = errors.New("group is at its maximum size")
	ErrNonEmpty                = errors.New("group is not empty")
	ErrGroupNotFound           = errors.New("group not found")
	ErrSubscribed              = errors.New("group is subscribed to the topic")
	// ErrMetadataTooLarge: the group's metadata passes Config.MaxMetadataBytes.
	ErrMetadataTooLarge = errors.New("group metadata too large")
	// ErrFormat: stored metadata that no version of ours wrote, or a newer one did.
	ErrFormat = errors.New("group metadata not readable")
)
