/* Counts how often each expert was chosen: does what _count_on_host of routing_readers.py does.
 *
 * A layer's router is read once a call, when the caches are full of the script's data: numpy's functions take several
 * times as long as the counting.
 */
#include "_timestamps.h"

static int64_t id_at(const char *ids, Py_ssize_t place, Py_ssize_t bytes)
{
    return bytes == 8 ? ((const int64_t *)ids)[place] : ((const int32_t *)ids)[place];
}

/* count_ids(address, number, bytes, experts): returns how often each expert is among `number` ids, which are signed
 * integers of 4 or 8 `bytes` side by side in the host's memory: a bytearray of int64, one for each expert.  Other ids
 * are left out.  Raises ValueError for another size of ids, and for negative numbers.
 */
PyObject *count_ids(PyObject *unused, PyObject *args)
{
    unsigned long long address;
    Py_ssize_t number, bytes, experts;
    if (!PyArg_ParseTuple(args, "Knnn", &address, &number, &bytes, &experts))
        return NULL;
    if (number < 0 || experts < 0 || (bytes != 4 && bytes != 8) || (address == 0 && number > 0)) {
        PyErr_SetString(PyExc_ValueError, "no ids in the host's memory");
        return NULL;
    }
    PyObject *counts = PyByteArray_FromStringAndSize(NULL, experts * (Py_ssize_t)sizeof(int64_t));
    if (counts == NULL)
        return NULL;
    int64_t *by_expert = (int64_t *)PyByteArray_AsString(counts);
    memset(by_expert, 0, experts * sizeof *by_expert);
    for (Py_ssize_t place = 0; place < number; place++) {
        int64_t id = id_at((const char *)(uintptr_t)address, place, bytes);
        if (id >= 0 && id < experts)
            by_expert[id]++;
    }
    return counts;
}
