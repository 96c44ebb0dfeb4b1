/* The qtest protocol: any text, on a machine without a CPU. Every request has one answer, OK or FAIL. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fuzz_board.h"
#include "src/control/qtest.h"

static struct config config;
static struct board *board;
static struct qtest *qtest;

static void start(void)
{
	static char *argv[] = {"vmm", "-accel", "qtest", "-m", "2", "-display", "none", "-serial", "null", NULL};

	log_set_level(LOG_ERROR);
	board = fuzz_board(&config, ARRAY_SIZE(argv) - 1, argv);
	qtest = qtest_new(board);
}

/* One answer for a request, none for an empty line; interrupts come in between. */
static void check(const char *request, char *output)
{
	unsigned answers = 0;
	char *save = NULL;

	for (char *l = output ? strtok_r(output, "\n", &save) : NULL; l; l = strtok_r(NULL, "\n", &save)) {
		if (!strncmp(l, "OK", 2) || !strncmp(l, "FAIL ", 5))
			answers++;
		else if (strncmp(l, "IRQ ", 4))
			abort();
	}
	if (answers != (request[strspn(request, " \t\r")] ? 1 : 0))
		abort();
}

/* Time steps and sizes are honest requests at any value: keep them cheap. */
static bool expensive(const char *line)
{
	return strstr(line, "clock_") && strlen(line) > 22;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char reset[] = "outb 0xcf9 6";
	char *text, *save = NULL, line[sizeof(reset)];

	if (!board)
		start();
	text = xstrndup((const char *)data, size);
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char *copy = xstrdup(l), *output;

		if (!expensive(l)) {
			qtest_line(qtest, copy);
			output = qtest_take_output(qtest);
			check(l, output);
			free(output);
		}
		free(copy);
		for (int i = 0; i < 20 && loop_step(loop_main(), 0); i++)
			continue;
	}
	free(text);
	memcpy(line, reset, sizeof(reset));
	qtest_line(qtest, line);
	free(qtest_take_output(qtest));
	while (loop_step(loop_main(), 0))
		continue;
	return 0;
}
