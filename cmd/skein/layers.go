package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// given is a value as it was given, and the name by which whoever gave it knows it.
type given struct{ value, name string }

// layer is what one place says, by the name of an option or of a Kafka config.
type layer map[string]given

// layers reads file, environment, --set and flags and lays them over each other, the last on top. What comes
// back has options under their own names only: an alias that stayed one would be a second value of the same
// thing, and no longer known to come from above or below the first.
func layers(flags *pflag.FlagSet, environ []string, file string, sets []string) (layer, []error) {
	out := layer{}
	var problems []error
	add := func(l layer, err error) {
		problems = append(problems, err, l.resolve())
		maps.Copy(out, l)
	}
	if file != "" {
		l := layer{}
		add(l, readConfigFile(file, l))
	}
	add(readEnvironment(environ), nil)
	add(readSets(sets))
	top := layer{}
	for _, o := range options {
		if f := flags.Lookup(o.name); f != nil && f.Changed {
			top[o.name] = given{value: f.Value.String(), name: o.name}
		}
	}
	add(top, nil)
	return out, problems
}

// resolve turns aliases into the options that they mean. Within one layer all that is said of an option must
// agree, but log.dir, as in Kafka, counts only where log.dirs does not say otherwise.
func (l layer) resolve() error {
	if !l.says("log.dir") || l.says("log.dirs") {
		delete(l, "log.dir")
	}
	problems := []error{l.clientListeners()}
	for _, o := range options {
		for _, a := range o.aliases {
			v, said := l[a], l.says(a)
			delete(l, a)
			if !said {
				continue
			}
			first, ok := l[o.name]
			if !ok {
				l[o.name] = v
			} else if !o.same(first.value, v.value) {
				problems = append(problems, fmt.Errorf("%s (%s) and %s (%s) must agree", first.name, first.value, v.name, v.value))
			}
		}
	}
	return errors.Join(problems...)
}

// says reports whether a Kafka config is given, and not as what Kafka takes for "not given".
func (l layer) says(config string) bool {
	v, ok := l[config]
	return ok && !(config == "log.dirs" && v.value == "") && !(config == "broker.id" && v.value == "-1")
}

// same reports whether two values of an option mean the same.
func (o option) same(a, b string) bool {
	var x, y settings
	errX, errY := o.set(&x, a), o.set(&y, b)
	return a == b || errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

func readSets(sets []string) (layer, error) {
	l := layer{}
	var problems []error
	for _, kv := range sets {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			problems = append(problems, fmt.Errorf("--set %s: want NAME=VALUE", kv))
			continue
		}
		l[k] = given{value: v, name: k}
	}
	return l, errors.Join(problems...)
}

func readConfigFile(path string, into layer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if strings.HasSuffix(path, ".properties") {
		return readProperties(path, text, into)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("read config %s: %w", path, err)
	}
	var problems []error
	for _, k := range slices.Sorted(maps.Keys(doc)) {
		v, err := scalar(doc[k])
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %s: %w", path, k, err))
			continue
		}
		into[k] = given{value: v, name: k}
	}
	return errors.Join(problems...)
}

// scalar renders a YAML value as Kafka's text form: lists are joined by commas.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int, int64, uint64:
		return fmt.Sprint(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			p, err := scalar(e)
			if err != nil {
				return "", err
			}
			parts[i] = p
		}
		return strings.Join(parts, ","), nil
	}
	return "", fmt.Errorf("want a value or a list of values, not %T (write Kafka names flat: num.partitions: 3)", v)
}
