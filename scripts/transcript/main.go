// Command transcript talks to a node as two tenants through openai-go, plain and
// streamed, and prints what was asked, what came back and what it cost. It is
// the client of scripts/realmodel.sh and proves nothing by itself: a call that
// fails ends it with status 1.
//
// It reads BASE_URL, REAL_KEY (a tenant whose model "tiny" is a real one) and
// ECHO_KEY (a tenant with the model "echo").
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

func main() {
	free := flag.Bool("free", false, "only print a free port")
	flag.Parse()
	err := error(nil)
	if *free {
		err = printFreePort()
	} else {
		err = talk()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "transcript:", err)
		os.Exit(1)
	}
}

func printFreePort() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	fmt.Println(port)
	return err
}

func talk() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, who := range []struct{ tenant, key, model, prompt string }{
		{"real", os.Getenv("REAL_KEY"), "tiny", "Once upon a time, there was a little ship"},
		{"globex", os.Getenv("ECHO_KEY"), "echo", "Once upon a time, there was a little ship"},
	} {
		client := openai.NewClient(option.WithBaseURL(os.Getenv("BASE_URL")), option.WithAPIKey(who.key), option.WithMaxRetries(0))
		ask := openai.ChatCompletionNewParams{
			Model:     who.model,
			Messages:  []openai.ChatCompletionMessageParamUnion{openai.UserMessage(who.prompt)},
			MaxTokens: openai.Int(48),
		}
		if err := plain(ctx, client, who.tenant, ask); err != nil {
			return fmt.Errorf("%s, plain: %w", who.tenant, err)
		}
		if err := streamed(ctx, client, who.tenant, ask); err != nil {
			return fmt.Errorf("%s, streamed: %w", who.tenant, err)
		}
	}
	return nil
}

func plain(ctx context.Context, client openai.Client, tenant string, ask openai.ChatCompletionNewParams) error {
	var head *http.Response
	began := time.Now()
	c, err := client.Chat.Completions.New(ctx, ask, option.WithResponseInto(&head))
	if err != nil {
		return err
	}
	fmt.Printf("\n== %s, model %s, plain\n", tenant, ask.Model)
	headers(head)
	fmt.Printf("answer: %s\nfinish_reason: %s, usage: %d in, %d out; %d ms\n", strings.TrimSpace(c.Choices[0].Message.Content),
		c.Choices[0].FinishReason, c.Usage.PromptTokens, c.Usage.CompletionTokens, time.Since(began).Milliseconds())
	return nil
}

func streamed(ctx context.Context, client openai.Client, tenant string, ask openai.ChatCompletionNewParams) error {
	ask.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	var head *http.Response
	began := time.Now()
	stream := client.Chat.Completions.NewStreaming(ctx, ask, option.WithResponseInto(&head))
	defer stream.Close()
	var text strings.Builder
	var first time.Duration
	chunks, in, out := 0, int64(0), int64(0)
	for stream.Next() {
		c := stream.Current()
		chunks++
		in, out = in+c.Usage.PromptTokens, out+c.Usage.CompletionTokens
		if len(c.Choices) > 0 && c.Choices[0].Delta.Content != "" {
			if first == 0 {
				first = time.Since(began)
			}
			text.WriteString(c.Choices[0].Delta.Content)
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	fmt.Printf("\n== %s, model %s, streamed\n", tenant, ask.Model)
	headers(head)
	fmt.Printf("answer: %s\n%d chunks, usage: %d in, %d out; first text after %d ms, all after %d ms\n", strings.TrimSpace(text.String()),
		chunks, in, out, first.Milliseconds(), time.Since(began).Milliseconds())
	return nil
}

func headers(r *http.Response) {
	fmt.Println(r.Status)
	for _, name := range []string{"X-Request-Id", "X-Bulkhead-Route", "X-Bulkhead-Attempts", "X-Bulkhead-Cost", "X-Ratelimit-Remaining-Tokens"} {
		if v := r.Header.Get(name); v != "" {
			fmt.Printf("%s: %s\n", strings.ToLower(name), v)
		}
	}
}
