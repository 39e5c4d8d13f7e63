/* A folder of one's own for tests that make certificates. One at a time in a process. */
#ifndef TOWLINE_PKI_TEST_FOLDER_H
#define TOWLINE_PKI_TEST_FOLDER_H

/* Makes it, below /tmp; a failure fails the test. */
void test_folder_make(void);
/* Removes it with all that is in it. */
void test_folder_remove(void);

/* The path of it. */
const char *test_folder(void);
/* The path of `name` in it; good until the fourth call after this one. */
const char *in_dir(const char *name);

#endif
