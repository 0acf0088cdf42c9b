package broker

import (
	"context"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// handler is one row of the dispatch table: ApiVersions, admission, metrics and docs all
// derive from these rows. The row stands in its API's file (NN_name.go).
type handler struct {
	key      int16
	name     string
	min, max int16
	// waits says that handle may block on other clients (a join waits for its group): the peer is
	// watched meanwhile, and ctx ends as soon as it goes away.
	waits bool
	// handle answers one request. It may block; ctx ends when the connection or the broker does.
	// A nil response means: send nothing, and close the connection if the request wanted an answer.
	// Produce and Fetch have paths of their own and leave it nil.
	handle func(b *Broker, ctx context.Context, rq *request) kmsg.Response
}

// handlers is the dispatch table, indexed by key. A row without a name is an API that Skein does not serve.
var handlers = [...]handler{
	0:      produce,
	1:      fetch,
	2:      listOffsets,
	3:      metadata,
	8:      offsetCommit,
	9:      offsetFetch,
	10:     findCoordinator,
	11:     joinGroup,
	12:     heartbeat,
	13:     leaveGroup,
	14:     syncGroup,
	15:     describeGroups,
	16:     listGroups,
	18:     apiVersions,
	19:     createTopics,
	20:     deleteTopics,
	21:     deleteRecords,
	22:     initProducerID,
	23:     offsetForLeaderEpoch,
	29:     describeACLs,
	32:     describeConfigs,
	33:     alterConfigs,
	34:     alterReplicaLogDirs,
	35:     describeLogDirs,
	37:     createPartitions,
	42:     deleteGroups,
	43:     electLeaders,
	44:     incrementalAlterConfigs,
	45:     alterPartitionReassignments,
	46:     listPartitionReassignments,
	47:     offsetDelete,
	48:     describeClientQuotas,
	50:     describeUserScramCredentials,
	57:     updateFeatures,
	60:     describeCluster,
	61:     describeProducers,
	74:     listConfigResources,
	75:     describeTopicPartitions,
	maxKey: {},
}

// maxKey is the greatest API key that the table has room for.
const maxKey = 94

// lookup finds the row that serves a key, nil if there is none.
func lookup(key int16) *handler {
	if key < 0 || int(key) >= len(handlers) || handlers[key].name == "" {
		return nil
	}
	return &handlers[key]
}

// request is one decoded request and who sent it.
type request struct {
	key, version int16
	clientID     string
	body         kmsg.Request
	remote       net.Addr
}

// host is the client's address as Kafka shows it to members and operators: "/" and the IP.
func (rq *request) host() string {
	if rq.remote == nil {
		return "/"
	}
	h, _, err := net.SplitHostPort(rq.remote.String())
	if err != nil {
		h = rq.remote.String()
	}
	return "/" + h
}
