/*
 * Two plugs of libvdeplug on a network: one sends frames of a length for some time, the other counts what comes.
 *
 *   frames VNL LENGTH MILLISECONDS IDLE     IDLE further plugs only listen
 *
 * Prints frames sent, frames received and the seconds between the first and the last of these.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libvdeplug.h>

#define LONGEST 9234
#define PATIENCE_MS 300

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static VDECONN *plug(char *vnl)
{
	struct vde_open_args args = {.port = 0, .group = NULL, .mode = 0700};
	VDECONN *conn = vde_open(vnl, "bench", &args);
	if (!conn) {
		fprintf(stderr, "vde_open: %s\n", strerror(errno));
		exit(1);
	}
	return conn;
}

static int has_frame(VDECONN *conn, int patience)
{
	struct pollfd fd = {.fd = vde_datafd(conn), .events = POLLIN};
	return poll(&fd, 1, patience) > 0;
}

int main(int argc, char **argv)
{
	static const unsigned char receiver[6] = {2, 0, 0, 0, 0, 2}, sender[6] = {2, 0, 0, 0, 0, 1};
	unsigned char frame[LONGEST] = {0};
	unsigned long sent = 0, received = 0;
	double first = 0, last = 0;
	int pipes[2];

	if (argc != 5)
		return 2;
	int length = atoi(argv[2]), idle = atoi(argv[4]);
	double span = atoi(argv[3]) / 1e3;
	if (length < 60 || length > LONGEST || pipe(pipes) < 0)
		return 2;
	while (idle-- > 0)
		plug(argv[1]);
	VDECONN *in = plug(argv[1]), *out = plug(argv[1]);

	/* The switch learns where the receiver is. */
	memset(frame, 0xff, 6);
	memcpy(frame + 6, receiver, 6);
	frame[12] = 0x88;
	frame[13] = 0xb5;
	vde_send(in, frame, 60, 0);
	if (!has_frame(out, 5000)) {
		fprintf(stderr, "nothing goes through\n");
		return 1;
	}
	vde_recv(out, frame, sizeof(frame), 0);

	memcpy(frame, receiver, 6);
	memcpy(frame + 6, sender, 6);
	pid_t child = fork();
	if (child < 0)
		return 1;
	if (child == 0) {
		double end = now() + span;
		do {
			for (int burst = 0; burst < 64; burst++)
				sent += vde_send(out, frame, length, 0) == length;
		} while (now() < end);
		if (write(pipes[1], &sent, sizeof(sent)) < 0)
			_exit(1);
		_exit(0);
	}
	/* Until nothing comes for a while. */
	while (has_frame(in, received ? PATIENCE_MS : 5000)) {
		if (vde_recv(in, frame, sizeof(frame), 0) != length)
			continue;
		if (received++ % 64 == 0) {
			last = now();
			if (!first)
				first = last;
		}
	}
	if (read(pipes[0], &sent, sizeof(sent)) != sizeof(sent) || waitpid(child, NULL, 0) < 0)
		return 1;
	printf("%lu %lu %f\n", sent, received, last - first);
	return 0;
}
