/* QMP without a machine: cutting the stream, the envelope, argument checks, introspection. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "src/control/json_stream.h"
#include "src/control/qmp.h"
#include "tests/lib/suite.h"

/* ---- commands of our own, so that nothing else of vmm is linked ---- */

static const struct qmp_type color = QMP_ENUM("Color", "red", "green");
static const struct qmp_type shape_kind = QMP_ENUM("ShapeKind", "circle", "box", "dot");
static const struct qmp_type shape = {
	.name = "Shape",
	.kind = QMP_KIND_OBJECT,
	.members = QMP_MEMBERS(QMP_REQ("type", shape_kind), QMP_OPT("color", color)),
	.tag = "type",
	.variants =
		(const struct qmp_variant[]){
			{"circle", QMP_MEMBERS(QMP_REQ("radius", qmp_number))},
			{"box", QMP_MEMBERS(QMP_REQ("width", qmp_size), QMP_REQ("height", qmp_size))},
			{NULL, NULL},
		},
};
static const struct qmp_type str_or_int = {.name = "StrOrInt",
					   .kind = QMP_KIND_ALTERNATE,
					   .choices = (const struct qmp_type *const[]){&qmp_str, &qmp_int, NULL}};

static json_t *negotiate(struct qmp_call *call, struct err *e)
{
	call->client->negotiated = true;
	call->client->oob = qmp_has_arg(call, "enable");
	return json_object();
}

static json_t *echo(struct qmp_call *call, struct err *e)
{
	return json_incref(call->args);
}

static json_t *run_fail(struct qmp_call *call, struct err *e)
{
	err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%s' not found", qmp_arg_str(call, "name"));
	return NULL;
}

static const struct qmp_command test_commands[] = {
	{"qmp_capabilities", "", "0.1", QMP_MEMBERS(QMP_OPT("enable", qmp_any)), NULL, 0, QMP_NEGOTIATION, negotiate},
	{"echo", "", "0.1",
	 QMP_MEMBERS(QMP_OPT("text", qmp_str), QMP_OPT("n", qmp_int), QMP_OPT("size", qmp_size),
		     QMP_OPT("on", qmp_bool), QMP_OPT("color", color), QMP_OPT("list", QMP_LIST_OF(color)),
		     QMP_OPT("shapes", QMP_LIST_OF(shape)), QMP_OPT("either", str_or_int)),
	 &qmp_any, 0, QMP_OOB, echo},
	{"fail", "", "0.1", QMP_MEMBERS(QMP_REQ("name", qmp_str)), NULL, 0, 0, run_fail},
	{NULL},
};
const struct qmp_command *const qmp_command_tables[] = {test_commands, NULL};

static const struct qmp_event test_event = {"HAPPENED", "", QMP_MEMBERS(QMP_REQ("color", color))};
const struct qmp_event *qmp_event_at(size_t i)
{
	return i ? NULL : &test_event;
}
const struct qmp_event *qmp_event_find(const char *name)
{
	return NULL;
}

/* dispatch.c asks for these only when there is a machine. */
enum run_state machine_run_state(const struct board *b)
{
	return RUN_RUNNING;
}
const char *run_state_name(enum run_state s)
{
	return "running";
}

/* Answers that come later need a session; these tests have none. */
void qmp_session_wait(struct qmp_session *s, struct qmp_later *l)
{
	ck_abort_msg("no session");
}
void qmp_session_answer(struct qmp_session *s, json_t *response)
{
	ck_abort_msg("no session");
}

/* ---- a client ---- */

static struct qmp_client client;
static struct json_stream in;
static char log_text[200000];

static void note(const char *what, const char *text)
{
	size_t n = strlen(log_text);

	snprintf(log_text + n, sizeof(log_text) - n, "%s%s;", what, text);
}

static void on_value(void *opaque, json_t *v)
{
	json_t *r = qmp_dispatch(NULL, NULL, &client, v);
	char *text = json_dumps(r, JSON_COMPACT);

	note("", text);
	free(text);
	json_decref(r);
}

static void on_error(void *opaque, const char *text)
{
	note("!", text);
}

static void setup(void)
{
	client = (struct qmp_client){.negotiated = true};
	*log_text = 0;
	json_stream_init(&in, on_value, on_error, NULL);
}

static void teardown(void)
{
	json_stream_free(&in);
}

static const char *say(const char *text)
{
	*log_text = 0;
	json_stream_feed(&in, text, strlen(text));
	return log_text;
}

static void says(const char *text, const char *expected)
{
	say(text);
	ck_assert_msg(strstr(log_text, expected) != NULL, "%s\n  gave %s\n  not  %s", text, log_text, expected);
}

/* ---- the stream ---- */

START_TEST(pieces_and_pipelines)
{
	const char *request = "{\"execute\": \"echo\", \"arguments\": {\"text\": \"}]\\\"'\\\\\"}, \"id\": [1]}";

	for (const char *p = request; p[1]; p++) { /* byte by byte: nothing before the last */
		json_stream_feed(&in, p, 1);
		ck_assert_str_eq(log_text, "");
	}
	ck_assert_str_eq(say("}"), "{\"return\":{\"text\":\"}]\\\"'\\\\\"},\"id\":[1]};");
	ck_assert_str_eq(say("{\"execute\":\"echo\",\"id\":1}{\"execute\":\"echo\",\"id\":2}\r\n\t "
			     "{\"execute\":\"echo\",\"id\":3}"),
			 "{\"return\":{},\"id\":1};{\"return\":{},\"id\":2};{\"return\":{},\"id\":3};");
}
END_TEST

START_TEST(single_quotes_as_people_type)
{
	ck_assert_str_eq(say("{'execute':'echo','arguments':{'text':'a\"b\\'c'}}"),
			 "{\"return\":{\"text\":\"a\\\"b'c\"}};");
}
END_TEST

static const struct {
	const char *text, *expected;
} garbage[] = {
	{"foo\n", "!JSON parse error, invalid keyword 'foo';"},
	{"foo bar\n", "!JSON parse error, invalid keyword 'foo';!JSON parse error, invalid keyword 'bar';"},
	{"}\n", "!JSON parse error, expecting value;"},
	{"]\n", "!JSON parse error, expecting value;"},
	{"{\"a\":]}\n", "!JSON parse error, "},
	{"{\"a\":1,,}\n", "!JSON parse error, "},
	{"{\"a\":1,\"a\":2}", "!JSON parse error, "},
	{"{\"a\":\"half a string\n", "!JSON parse error, stray"},
	{"\xff\n", "!JSON parse error, stray"},
	{"\x01\n", "!JSON parse error, stray"},
	{"{\"a\":\"\xff\"}\n", "!JSON parse error, stray"},
	{"{\"a\":\"\xc3\x28\"}\n", "!JSON parse error, "},
	{"[99999999999999999999999999]\n", "!JSON parse error, "},
	{"\"\\ud800\"\n", "!JSON parse error, "},
	{"5\n", "QMP input must be a JSON object"},
	{"[]", "QMP input must be a JSON object"},
	{"\"x\"", "QMP input must be a JSON object"},
	{"null\n", "QMP input must be a JSON object"},
};

START_TEST(garbage_is_answered_and_forgotten)
{
	says(garbage[_i].text, garbage[_i].expected);
	says("\n{\"execute\":\"echo\",\"id\":\"next\"}", "\"id\":\"next\"");
}
END_TEST

START_TEST(too_much_is_refused_once)
{
	static char buf[1 << 20];

	/* a string that never ends */
	say("{\"execute\": \"");
	memset(buf, 'x', sizeof(buf));
	for (int i = 0; i < 11; i++)
		json_stream_feed(&in, buf, sizeof(buf));
	ck_assert_str_eq(log_text, "!JSON token size limit exceeded;");
	says("\n{\"execute\":\"echo\",\"id\":1}", "\"id\":1");
	ck_assert_uint_lt(in.cap, 100000); /* and the memory is given back */

	memset(buf, '[', sizeof(buf));
	*log_text = 0;
	json_stream_feed(&in, buf, sizeof(buf));
	ck_assert_str_eq(log_text, "!JSON nesting depth limit exceeded;");
	says("\n{\"execute\":\"echo\",\"id\":2}", "\"id\":2");

	say("[");
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = "1,"[i % 2];
	json_stream_feed(&in, buf, sizeof(buf));
	json_stream_feed(&in, buf, sizeof(buf));
	ck_assert_str_eq(log_text, "!JSON token count limit exceeded;");
	says("\n{\"execute\":\"echo\",\"id\":3}", "\"id\":3");
}
END_TEST

START_TEST(deep_but_allowed)
{
	char text[3000] = "{\"execute\":\"echo\",\"arguments\":{\"x\":";
	size_t n = strlen(text);

	memset(text + n, '[', 900);
	memset(text + n + 900, ']', 900);
	strcpy(text + n + 1800, "}}");
	says(text, "Parameter 'x' is unexpected");
}
END_TEST

/* ---- the envelope and arguments ---- */

static const struct {
	const char *text, *expected;
} requests[] = {
	{"{}", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"QMP input lacks member 'execute'\"}}"},
	{"{\"execute\":5}", "QMP input member 'execute' must be a string"},
	{"{\"execute\":\"echo\",\"foo\":1}", "QMP input member 'foo' is unexpected"},
	{"{\"execute\":\"echo\",\"arguments\":[]}", "QMP input member 'arguments' must be an object"},
	{"{\"execute\":\"echo\",\"exec-oob\":\"echo\"}", "QMP input member 'execute' clashes with 'exec-oob'"},
	{"{\"exec-oob\":\"echo\"}", "QMP input member 'exec-oob' is unexpected"},
	{"{\"execute\":\"nope\",\"id\":null}",
	 "\"class\":\"CommandNotFound\",\"desc\":\"The command nope has not been found\"},\"id\":null"},
	{"{\"execute\":\"qmp_capabilities\"}", "Capabilities negotiation is already complete, command ignored"},
	{"{\"execute\":\"fail\"}", "Parameter 'name' is missing"},
	{"{\"execute\":\"fail\",\"arguments\":{\"name\":\"x\"},\"id\":9}",
	 "{\"error\":{\"class\":\"DeviceNotFound\",\"desc\":\"Device 'x' not found\"},\"id\":9}"},
	{"{\"execute\":\"echo\",\"arguments\":{\"text\":5}}", "Invalid parameter type for 'text', expected: string"},
	{"{\"execute\":\"echo\",\"arguments\":{\"n\":\"5\"}}", "Invalid parameter type for 'n', expected: integer"},
	{"{\"execute\":\"echo\",\"arguments\":{\"n\":5.5}}", "Invalid parameter type for 'n', expected: integer"},
	{"{\"execute\":\"echo\",\"arguments\":{\"size\":-1}}", "Parameter 'size' expects a non-negative integer"},
	{"{\"execute\":\"echo\",\"arguments\":{\"on\":1}}", "Invalid parameter type for 'on', expected: boolean"},
	{"{\"execute\":\"echo\",\"arguments\":{\"color\":\"blue\"}}", "Parameter 'color' does not accept value 'blue'"},
	{"{\"execute\":\"echo\",\"arguments\":{\"list\":\"red\"}}",
	 "Invalid parameter type for 'list', expected: array"},
	{"{\"execute\":\"echo\",\"arguments\":{\"list\":[\"red\",5]}}",
	 "Invalid parameter type for 'list[1]', expected: string"},
	{"{\"execute\":\"echo\",\"arguments\":{\"shapes\":[{}]}}", "Parameter 'shapes[0].type' is missing"},
	{"{\"execute\":\"echo\",\"arguments\":{\"shapes\":[{\"type\":\"cone\"}]}}",
	 "Parameter 'type' does not accept value 'cone'"},
	{"{\"execute\":\"echo\",\"arguments\":{\"shapes\":[{\"type\":\"dot\"},{\"type\":\"box\",\"width\":1}]}}",
	 "Parameter 'shapes[1].height' is missing"},
	{"{\"execute\":\"echo\",\"arguments\":{\"shapes\":[{\"type\":\"circle\",\"width\":1,\"radius\":1}]}}",
	 "Parameter 'shapes[0].width' is unexpected"},
	{"{\"execute\":\"echo\",\"arguments\":{\"shapes\":[{\"type\":\"circle\",\"radius\":1.5,\"color\":\"red\"}]}}",
	 "\"return\""},
	{"{\"execute\":\"echo\",\"arguments\":{\"either\":[]}}",
	 "Invalid parameter type for 'either', expected: StrOrInt"},
	{"{\"execute\":\"echo\",\"arguments\":{\"either\":5}}", "\"return\":{\"either\":5}"},
	{"{\"execute\":\"echo\",\"arguments\":{\"x\":5}}", "Parameter 'x' is unexpected"},
};

START_TEST(requests_are_checked)
{
	says(requests[_i].text, requests[_i].expected);
}
END_TEST

START_TEST(negotiation_comes_first)
{
	client = (struct qmp_client){0};
	says("{\"execute\":\"echo\"}", "Expecting capabilities negotiation with 'qmp_capabilities'");
	says("{\"execute\":\"nope\"}", "Expecting capabilities negotiation with 'qmp_capabilities'");
	says("{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}", "\"return\"");
	says("{\"exec-oob\":\"echo\",\"id\":1}", "\"return\"");
	says("{\"exec-oob\":\"fail\",\"id\":1}", "The command fail does not support OOB");
}
END_TEST

START_TEST(text_that_is_no_utf8_becomes_utf8)
{
	static const char *const cases[][2] = {
		{"plain", "plain"},
		{"a\xffz", "a\xef\xbf\xbdz"},
		{"\xc3\xa9", "\xc3\xa9"},
		{"\xc3", "\xef\xbf\xbd"},
		{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
		{"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *v = qmp_text(cases[i][0]);

		ck_assert_str_eq(json_string_value(v), cases[i][1]);
		json_decref(v);
	}
}
END_TEST

/* ---- introspection ---- */

static json_t *entry(const json_t *list, const char *name)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o)
	{
		if (!strcmp(json_string_value(json_object_get(o, "name")), name))
			return o;
	}
	ck_abort_msg("no %s in the schema", name);
}

static const char *get(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

START_TEST(schema_is_the_tables)
{
	json_t *s = qmp_schema(), *o, *m;
	size_t i, j;

	o = entry(s, "echo");
	ck_assert_str_eq(get(o, "meta-type"), "command");
	ck_assert(json_is_true(json_object_get(o, "allow-oob")));
	ck_assert_str_eq(get(o, "ret-type"), "any");
	o = entry(s, get(o, "arg-type"));
	ck_assert_uint_eq(json_array_size(json_object_get(o, "members")), 8);
	ck_assert(json_is_null(json_object_get(json_array_get(json_object_get(o, "members"), 0), "default")));
	o = entry(s, "Shape");
	ck_assert_str_eq(get(o, "tag"), "type");
	ck_assert_uint_eq(json_array_size(json_object_get(o, "variants")), 2);
	o = entry(s, "[Color]");
	ck_assert_str_eq(get(o, "element-type"), "Color");
	o = entry(s, "HAPPENED");
	ck_assert_str_eq(get(o, "meta-type"), "event");
	o = entry(s, get(o, "arg-type"));
	ck_assert_str_eq(get(json_array_get(json_object_get(o, "members"), 0), "type"), "Color");
	/* every type that is named exists, once */
	json_array_foreach(s, i, o)
	{
		static const char *const refs[] = {"arg-type", "ret-type", "element-type"};

		for (j = 0; j < ARRAY_SIZE(refs); j++)
			if (get(o, refs[j]))
				entry(s, get(o, refs[j]));
		json_array_foreach(json_object_get(o, "members"), j, m)
		{
			if (get(m, "type"))
				entry(s, get(m, "type"));
		}
		for (j = 0; j < i; j++)
			ck_assert_str_ne(get(json_array_get(s, j), "name"), get(o, "name"));
	}
	json_decref(s);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("qmp");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 20);
	tcase_add_test(t, pieces_and_pipelines);
	tcase_add_test(t, single_quotes_as_people_type);
	tcase_add_loop_test(t, garbage_is_answered_and_forgotten, 0, ARRAY_SIZE(garbage));
	tcase_add_test(t, too_much_is_refused_once);
	tcase_add_test(t, deep_but_allowed);
	tcase_add_loop_test(t, requests_are_checked, 0, ARRAY_SIZE(requests));
	tcase_add_test(t, negotiation_comes_first);
	tcase_add_test(t, text_that_is_no_utf8_becomes_utf8);
	tcase_add_test(t, schema_is_the_tables);
	return run_suite("qmp", (TCase *[]){t, NULL});
}
