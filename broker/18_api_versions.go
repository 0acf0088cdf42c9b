package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// ApiVersions (key 18), v0 to v4.
//
// The answer derives from the dispatch table: what is advertised is what is served. A version that is not supported
// gets the v0 answer with UNSUPPORTED_VERSION and the range of this API (KIP-511), as clients rely on.
//
// Features are those that Apache Kafka 4.3 finalizes on a new cluster and that Skein serves too. In v3 a supported
// feature with minimum 0 is left out: Java clients before KAFKA-17011 die of it; that is what v4 was made for.
//
//	v0  keys with their ranges
//	v1  + throttle time
//	v3  flexible; client software in the request; features in the answer
//	v4  features may have minimum 0
var apiVersions = handler{
	key: keyApiVersions, name: "ApiVersions", min: 0, max: 4,
	handle: (*Broker).handleApiVersions,
}

// feature is a cluster feature (KIP-584): what is supported and the level in force.
type feature struct {
	name            string
	min, max, level int16
}

// features of the cluster. metadata.version is that of Apache Kafka 4.3 (4.3-IV0 is level 30), which tools show.
// group.version (KIP-848) and transaction.version (KIP-890) are to be added with what they promise.
var features = []feature{
	{name: "kraft.version", min: 0, max: 1, level: 0},
	{name: "metadata.version", min: 7, max: 30, level: 30},
}

func (b *Broker) handleApiVersions(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.ApiVersionsRequest)
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if rq.version >= 3 && !(validSoftware(req.ClientSoftwareName) && validSoftware(req.ClientSoftwareVersion)) {
		resp.ErrorCode = int16(protocol.CodeInvalidRequest)
		return resp
	}
	b.listAPIs(resp)
	if rq.version < 3 {
		return resp
	}
	for _, f := range features {
		if f.min == 0 && rq.version < 4 {
			continue
		}
		s := kmsg.NewApiVersionsResponseSupportedFeature()
		s.Name, s.MinVersion, s.MaxVersion = f.name, f.min, f.max
		resp.SupportedFeatures = append(resp.SupportedFeatures, s)
	}
	for _, f := range features {
		if f.level == 0 {
			continue
		}
		l := kmsg.NewApiVersionsResponseFinalizedFeature()
		l.Name, l.MinVersionLevel, l.MaxVersionLevel = f.name, f.level, f.level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, l)
	}
	resp.FinalizedFeaturesEpoch = b.store.Map().Revision()
	return resp
}

func (b *Broker) listAPIs(resp *kmsg.ApiVersionsResponse) {
	for i := range b.rows {
		row := &b.rows[i]
		if row.name == "" {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = row.key, row.min, row.max
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
}

// unsupportedApiVersions is the answer to a version that is not served: v0, with the versions that are. Kafka names
// ApiVersions alone.
func unsupportedApiVersions(b *Broker) kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = int16(protocol.CodeUnsupportedVersion)
	k := kmsg.NewApiVersionsResponseApiKey()
	row := &b.rows[keyApiVersions]
	k.ApiKey, k.MinVersion, k.MaxVersion = row.key, row.min, row.max
	resp.ApiKeys = append(resp.ApiKeys, k)
	return resp
}

// validSoftware is Kafka's rule for client software names and versions: letters, digits, '-' and '.', neither at the
// start nor at the end.
func validSoftware(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case (c == '-' || c == '.') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return s != ""
}
