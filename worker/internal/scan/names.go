package scan

import "unicode/utf8"

// name says what a top-level key means to the gateway.
type name uint8

const (
	nameOther name = iota
	nameModel
	nameStream
	nameStreamOptions
	nameMaxTokens
	nameMaxCompletionTokens
	nameMaxOutputTokens
	nameN
	nameBestOf
	nameServiceTier
	nameBackground
	namePrompt
	namePromptText // becomes prompt
	nameTools
	nameReference // makes the provider add stored text
	nameHosted    // makes the provider run tools
	namePlain     // known, not looked into
	nameSteering  // would choose the upstream or its credential
)

// maxName is the longest name that classify knows, in bytes.
const maxName = 32

// classify looks a key up as it is spelled.
func classify(key []byte) name {
	switch string(key) {
	case "model":
		return nameModel
	case "stream":
		return nameStream
	case "stream_options":
		return nameStreamOptions
	case "max_tokens":
		return nameMaxTokens
	case "max_completion_tokens":
		return nameMaxCompletionTokens
	case "max_output_tokens":
		return nameMaxOutputTokens
	case "n":
		return nameN
	case "best_of":
		return nameBestOf
	case "service_tier":
		return nameServiceTier
	case "background":
		return nameBackground
	case "prompt":
		return namePrompt
	case "messages", "input", "system", "instructions":
		return namePromptText
	case "tools", "functions":
		return nameTools
	case "previous_response_id", "conversation", "container":
		return nameReference
	case "web_search_options", "mcp_servers":
		return nameHosted
	case "temperature", "top_p", "top_k", "stop", "stop_sequences", "seed", "user", "metadata", "safety_identifier",
		"prompt_cache_key", "tool_choice", "function_call", "parallel_tool_calls", "response_format", "text",
		"encoding_format", "dimensions", "reasoning", "reasoning_effort", "thinking", "modalities", "audio", "prediction",
		"logprobs", "top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty", "store", "suffix", "echo",
		"truncation", "include", "verbosity", "max_tool_calls", "betas":
		return namePlain
	case "api_base", "api_key", "api_host", "api_type", "base_url", "custom_host", "custom_llm_provider", "endpoint_url",
		"proxy_url", "target_url", "upstream_url", "azure_endpoint", "azure_ad_token", "extra_headers", "litellm_params",
		"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_bedrock_runtime_endpoint",
		"vertex_credentials":
		return nameSteering
	}
	return nameOther
}

// classifyFolded looks a key up as a lenient parser would.
func classifyFolded(key []byte) name {
	var buf [maxName]byte
	folded, ok := fold(&buf, key)
	if !ok {
		return nameOther
	}
	return classify(folded)
}

// fold writes key in lower case ASCII, or reports false when no parser could
// take it for a known name. Besides A-Z, the letters that some case-insensitive
// comparison takes for an ASCII one: long s and the Kelvin sign (Go, Unicode
// simple folding), the two Turkish i (Java).
func fold(buf *[maxName]byte, key []byte) ([]byte, bool) {
	if len(key) > 3*maxName {
		return nil, false
	}
	k := 0
	for i := 0; i < len(key); k++ {
		r, size := utf8.DecodeRune(key[i:])
		i += size
		switch {
		case k == maxName:
			return nil, false
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case r == 'ſ':
			r = 's'
		case r == '\u212a': // Kelvin sign
			r = 'k'
		case r == 'İ' || r == 'ı':
			r = 'i'
		case r >= utf8.RuneSelf:
			return nil, false
		}
		buf[k] = byte(r)
	}
	return buf[:k], true
}

// isMediaKey reports whether a key inside the prompt holds an image, audio or
// a file.
func isMediaKey(key []byte) bool {
	switch string(key) {
	case "image_url", "input_audio", "audio", "file", "file_id", "file_url", "file_data", "video_url":
		return true
	}
	return false
}

// isMediaType reports the same of the type of a content part.
func isMediaType(t []byte) bool {
	switch string(t) {
	case "image", "image_url", "input_image", "audio", "input_audio", "audio_url", "file", "input_file", "document",
		"container_upload", "video", "video_url", "input_video", "computer_screenshot":
		return true
	}
	return false
}
