package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/skeinmq/skein/bench"
	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/cmd/skein/dev"
	"github.com/skeinmq/skein/controller/balance"
)

// printed are the types of all that commands print as JSON.
var printed = []any{
	build{}, []outcome{}, []topicView{}, []groupView{}, []resetMove{}, broker.MapView{}, broker.TopicMapView{}, broker.MoveResult{},
	[]broker.BrokerView{}, broker.BrokerResult{}, clusterView{}, []voterState{}, levelView{}, balance.Status{}, inspectView{}, verifyView{},
	[]dev.Status{}, bench.Produced{}, bench.Consumed{}, versus[bench.Produced]{}, versus[bench.Consumed]{},
	bench.Report{}, bench.FailoverReport{}, bench.GrowthReport{}, bench.ClusterReport{},
}

// TestJSON: every name in what commands print as JSON is lowerCamelCase, and no list is null.
func TestJSON(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	seen := map[reflect.Type]bool{}
	var walk func(path string, of reflect.Type, inMap bool)
	walk = func(path string, of reflect.Type, inMap bool) {
		switch of.Kind() {
		case reflect.Slice, reflect.Map:
			if inMap && of.Elem().Kind() != reflect.Uint8 {
				t.Errorf("%s: a list in a map may be null", path)
			}
			walk(path, of.Elem(), inMap || of.Kind() == reflect.Map)
		case reflect.Array, reflect.Pointer:
			walk(path, of.Elem(), inMap)
		case reflect.Struct:
			if _, ok := reflect.New(of).Interface().(json.Marshaler); ok || seen[of] {
				return
			}
			seen[of] = true
			for i := range of.NumField() {
				f := of.Field(i)
				key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if !f.IsExported() || key == "-" {
					continue
				}
				if !name.MatchString(key) && !(f.Anonymous && key == "") {
					t.Errorf("%s.%s is %q in JSON", path, f.Name, key)
				}
				walk(path+"."+f.Name, f.Type, inMap)
			}
		}
	}
	for _, v := range printed {
		walk(reflect.TypeOf(v).String(), reflect.TypeOf(v), false)
		var out bytes.Buffer
		if err := printJSON(&out, reflect.New(reflect.TypeOf(v)).Elem().Interface()); err != nil {
			t.Fatal(err)
		}
		filled := reflect.New(reflect.TypeOf(v)).Elem()
		if filled.Kind() == reflect.Slice { // one element that is all zero
			filled = reflect.MakeSlice(filled.Type(), 1, 1)
			if err := printJSON(&out, filled.Interface()); err != nil {
				t.Fatal(err)
			}
		}
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "null") && !strings.Contains(line, `"controller"`) { // nobody
				t.Errorf("%T prints %s", v, line)
			}
		}
	}
}
