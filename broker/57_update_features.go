package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// UpdateFeatures (key 57), v0 to v2.
//
// The levels of the cluster's features are fixed. Asking for the level that is in force is fine, anything else is
// INVALID_UPDATE_VERSION.
//
//	v1  upgrade types, validate only   v2  one error for all features
var updateFeatures = handler{
	key: 57, name: "UpdateFeatures", min: 0, max: 2,
	handle: (*Broker).handleUpdateFeatures,
}

func (b *Broker) handleUpdateFeatures(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.UpdateFeaturesRequest)
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	for i := range req.FeatureUpdates {
		u := &req.FeatureUpdates[i]
		at := slices.IndexFunc(features, func(f feature) bool { return f.name == u.Feature })
		why := ""
		switch {
		case at < 0:
			why = "does not support this feature."
		case features[at].level != u.MaxVersionLevel:
			why = "keeps the level of this feature fixed."
		default:
			r := kmsg.NewUpdateFeaturesResponseResult()
			r.Feature = u.Feature
			resp.Results = append(resp.Results, r)
			continue
		}
		err := refuse(protocol.CodeInvalidUpdateVersion,
			"The update failed for all features since the following feature had an error: Invalid update version %d for feature %s. Local controller %d %s",
			u.MaxVersionLevel, u.Feature, b.controllerID(b.store.Map()), why)
		resp.ErrorCode, resp.ErrorMessage, resp.Results = errorCode(err), errorMessage(err), nil
		return resp
	}
	return resp
}
