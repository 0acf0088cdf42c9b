package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// levelView is what GET /v1/cluster/level answers: the cluster's feature level, and what its brokers know.
type levelView struct {
	Level   int           `json:"level"`
	Brokers []brokerBuild `json:"brokers"`
}

type brokerBuild struct {
	Broker ident.Broker `json:"broker"`
	Build  string       `json:"build,omitempty"`
	Newest int          `json:"newest"`          // level that the build knows
	Error  string       `json:"error,omitempty"` // it does not answer
}

// levelRequest asks for a level, of POST /v1/cluster/level; 0: the newest that every broker knows.
type levelRequest struct {
	Level int `json:"level"`
}

// builds asks every broker that is a member which build it runs. One that is none will be asked when it joins.
func (n *node) builds(ctx context.Context) levelView {
	m := n.store.Map()
	v := levelView{Level: int(m.Level()), Brokers: []brokerBuild{}}
	if n.net == nil {
		v.Brokers = append(v.Brokers, brokerBuild{Broker: n.settings.nodeID, Build: version, Newest: int(queuemapper.NewestLevel())})
		return v
	}
	who := make(map[ident.Broker]string)
	for _, member := range n.ctl.Members() {
		who[member.Broker] = member.Address
	}
	for b := range m.Brokers() {
		who[b.ID] = b.Internal
	}
	for _, g := range n.net.helloAll(ctx, who) {
		b := brokerBuild{Broker: g.id}
		switch {
		case g.err != nil:
			b.Error = g.err.Error()
		case ident.Broker(g.reply.Broker) != g.id:
			b.Error = fmt.Sprintf("at %s is broker %d", g.addr, g.reply.Broker)
		default:
			b.Build, b.Newest = g.reply.Version, int(max(g.reply.NewestLevel, 1))
		}
		v.Brokers = append(v.Brokers, b)
	}
	return v
}

// raiseLevel raises the cluster's feature level if every broker is there and knows it.
func (n *node) raiseLevel(ctx context.Context, to int) (levelView, error) {
	v := n.builds(ctx)
	common := slices.MinFunc(v.Brokers, func(a, b brokerBuild) int { return a.Newest - b.Newest }).Newest
	if to == 0 {
		to = common
	}
	var problems []error
	for _, b := range v.Brokers {
		switch {
		case b.Error != "":
			problems = append(problems, fmt.Errorf("broker %d does not answer: start it, or remove it (%s)", b.Broker, b.Error))
		case b.Newest < to:
			problems = append(problems, fmt.Errorf("broker %d runs build %s, which knows levels up to %d", b.Broker, b.Build, b.Newest))
		}
	}
	if len(problems) > 0 {
		return v, fmt.Errorf("the feature level stays %d: %w", v.Level, errors.Join(problems...))
	}
	if err := n.store.RaiseLevel(ctx, queuemapper.Level(to)); err != nil {
		return v, err
	}
	v.Level = to
	return v, nil
}

func (n *node) serveLevel(w http.ResponseWriter, r *http.Request) {
	select {
	case <-n.mapOpen:
	default:
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	if n.controller.Load() == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	var v levelView
	if r.Method == http.MethodGet {
		v = n.builds(r.Context())
	} else {
		var rq levelRequest
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&rq)
		if err == nil {
			v, err = n.raiseLevel(r.Context(), rq.Level)
		}
		if err != nil {
			code := http.StatusBadRequest
			if errors.Is(err, queuemapper.ErrUnavailable) || errors.Is(err, queuemapper.ErrUnknown) {
				code = http.StatusServiceUnavailable
			}
			http.Error(w, err.Error(), code)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}

func levelCommand(f *opsFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "level [raise [LEVEL]]",
		Short: "Show the feature level and each broker's build; raise it after an upgrade",
		Long: `A build uses nothing that a build of the cluster's feature level would not understand: brokers of different builds work together.
After the last one was upgraded, raise the level: by itself to the newest that all of them know. It cannot be lowered; older builds
are refused from then on.`,
		Example: "  skein cluster level\n  skein cluster level raise",
		Args: func(_ *cobra.Command, in []string) error {
			if len(in) > 2 || len(in) > 0 && in[0] != "raise" {
				return usageError{fmt.Errorf("%q: want nothing, or raise and a level", in)}
			}
			return nil
		},
	}
	cmd.RunE = func(cmd *cobra.Command, in []string) (err error) {
		var v levelView
		if len(in) == 0 {
			err = f.call(cmd.Context(), "GET", "/v1/cluster/level", nil, &v)
		} else {
			var rq levelRequest
			if len(in) > 1 {
				if rq.Level, err = strconv.Atoi(in[1]); err != nil || rq.Level < 1 {
					return usageError{fmt.Errorf("%q is not a level", in[1])}
				}
			}
			err = f.call(cmd.Context(), "POST", "/v1/cluster/level", rq, &v)
		}
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if f.json {
			return printJSON(out, v)
		}
		fmt.Fprintf(out, "feature level %d\n", v.Level)
		t := newTable(out, "BROKER", "BUILD", "KNOWS UP TO", "")
		for _, b := range v.Brokers {
			t.row(b.Broker, b.Build, b.Newest, b.Error)
		}
		return t.flush()
	}
	return cmd
}
