package main

import (
	"context"
)

type toolCase struct {
	name string
}

var toolCases []toolCase

type toolHost struct {
	in    *installer
	stage *stage
}

func (t *toolHost) close() {}

func (m *matrix) runTool(ctx context.Context, c client) {}

func (m *matrix) selftest(ctx context.Context) int { return 2 }
