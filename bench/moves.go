package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// mapView is what the benchmarks need of a Skein broker's GET /v1/map.
type mapView struct {
	Logs []struct {
		ID     string `json:"id"`
		Broker int    `json:"broker"`
		State  string `json:"state"`
	} `json:"logs"`
	Groups []groupView `json:"groups"`
}

type groupView struct {
	Group      int    `json:"group"`
	Log        string `json:"log"`
	Epoch      int64  `json:"epoch"`
	Partitions int    `json:"partitions"`
}

func readMap(ctx context.Context, addr string) (v mapView, err error) {
	return v, callHTTP(ctx, "GET", "http://"+addr+"/v1/map", nil, &v)
}

// callHTTP sends and takes JSON.
func callHTTP(ctx context.Context, method, url string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	rq, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		return err
	}
	defer rs.Body.Close()
	text, err := io.ReadAll(rs.Body)
	if err != nil {
		return err
	}
	if rs.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, url, rs.Status, strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// hosts maps logs to brokers.
func (v mapView) hosts() map[string]int {
	out := map[string]int{}
	for _, l := range v.Logs {
		out[l.ID] = l.Broker
	}
	return out
}

// groupMoves is how many moves a run of the scenario makes.
const groupMoves = 100

// moves moves one group at a time from broker to broker while every partition is being written to; a sample is the worst
// latency of a request that was due from just before a move until just after.
func (b *faultBench) moves(ctx context.Context) error {
	f, ok := b.fleet.(*skeinFleet)
	if !ok {
		return errors.New("only Skein moves groups")
	}
	return b.underFlow(ctx, b.r.all(), func(flow *flow) error {
		for n := range groupMoves {
			v, err := readMap(ctx, f.HTTP(1))
			if err != nil {
				return err
			}
			filled := slices.DeleteFunc(v.Groups, func(g groupView) bool { return g.Partitions == 0 })
			if len(filled) == 0 {
				return errors.New("no group has partitions")
			}
			g := filled[n%len(filled)]
			to := otherLog(v, g.Log, n)
			if to == "" {
				return errors.New("no other log is open")
			}
			flow.take()
			begun := time.Now()
			if err := callHTTP(ctx, "POST", "http://"+f.HTTP(v.hosts()[g.Log])+"/v1/map/move", map[string]any{"groups": []int{g.Group}, "to": to}, nil); err != nil {
				return fmt.Errorf("move group %d: %w", g.Group, err)
			}
			if rest := 50*time.Millisecond - time.Since(begun); rest > 0 {
				time.Sleep(rest)
			}
			b.out.Samples = append(b.out.Samples, flow.take().Seconds())
		}
		return nil
	})
}

func otherLog(v mapView, not string, n int) string {
	var open []string
	for _, l := range v.Logs {
		if l.State == "open" && l.ID != not {
			open = append(open, l.ID)
		}
	}
	if len(open) == 0 {
		return ""
	}
	return open[n%len(open)]
}
