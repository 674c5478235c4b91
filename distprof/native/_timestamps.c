/* The intervals of a timed step: a buffer of timestamps, and the hook that begins an interval when the gradient of a
 * parameter arrives.
 *
 * Timestamps are written into one block of memory, from the clock that time.perf_counter_ns reads: a Python int for
 * each would cost more than reading the clock.
 */
#include "_timestamps.h"

#include <string.h>
#include <time.h>

/* TimestampBuffer: a sequence of nanoseconds that reads the clock itself; has what distprof.probes.timing.timeline asks
 * of a buffer. */

typedef struct {
    PyObject_HEAD
    int64_t *ns;
    Py_ssize_t size, capacity;
} TimestampBuffer;

static PyTypeObject *buffer_type, *hook_type;

static int append(TimestampBuffer *self, int64_t ns)
{
    int64_t *room = self->size < self->capacity ? self->ns : more_room(self->ns, &self->capacity, sizeof *room);
    if (room == NULL)
        return -1;
    self->ns = room;
    self->ns[self->size++] = ns;
    return 0;
}

static int append_now(TimestampBuffer *self)
{
    struct timespec moment;
    if (clock_gettime(CLOCK_MONOTONIC, &moment) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return append(self, moment.tv_sec * INT64_C(1000000000) + moment.tv_nsec);
}

int switch_owner(PyObject *timestamps, PyObject *now, PyObject *owners, PyObject *owner)
{
    if (Py_TYPE(timestamps) == buffer_type) {
        if (append_now((TimestampBuffer *)timestamps) < 0)
            return -1;
    } else {
        PyObject *moment = PyObject_CallNoArgs(now);
        PyObject *done = moment == NULL ? NULL : PyObject_CallMethod(timestamps, "append", "O", moment);
        Py_XDECREF(moment);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    return PyList_Append(owners, owner);
}

static PyObject *buffer_append(PyObject *object, PyObject *number)
{
    int64_t ns = PyLong_AsLongLong(number);
    if ((ns == -1 && PyErr_Occurred()) || append((TimestampBuffer *)object, ns) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *buffer_tobytes(PyObject *object, PyObject *unused)
{
    TimestampBuffer *self = (TimestampBuffer *)object;
    return PyBytes_FromStringAndSize((char *)self->ns, self->size * sizeof *self->ns);
}

/* sums(slots, size, long_ns): interval i lasts from timestamp i to the next one, and its time is added to the sum at
 * slots[i], of 32 bits each.  Returns these sums, of 64 bits each, and a list of the intervals of long_ns or more. */
static PyObject *buffer_sums(PyObject *object, PyObject *args)
{
    TimestampBuffer *self = (TimestampBuffer *)object;
    const char *slots;
    Py_ssize_t length, size;
    long long long_ns;
    if (!PyArg_ParseTuple(args, "y#nL", &slots, &length, &size, &long_ns))
        return NULL;
    if (size < 0 || length != (self->size - 1) * (Py_ssize_t)sizeof(int32_t)) {
        PyErr_SetString(PyExc_ValueError, "sums needs a slot for each interval");
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size * sizeof(int64_t)), *long_ones = PyList_New(0);
    int whole = bytes != NULL && long_ones != NULL;
    int64_t *sums = whole ? (int64_t *)PyBytes_AsString(bytes) : NULL;
    if (whole)
        memset(sums, 0, size * sizeof *sums);
    for (Py_ssize_t i = 0; whole && i + 1 < self->size; i++) {
        int32_t slot;
        memcpy(&slot, slots + i * sizeof slot, sizeof slot);
        int64_t ns = self->ns[i + 1] - self->ns[i];
        if (slot < 0 || slot >= size) {
            PyErr_SetString(PyExc_IndexError, "no such slot");
            whole = 0;
        } else if (sums[slot] += ns, ns >= long_ns) {
            PyObject *number = PyLong_FromSsize_t(i);
            whole = number != NULL && PyList_Append(long_ones, number) == 0;
            Py_XDECREF(number);
        }
    }
    PyObject *found = whole ? PyTuple_Pack(2, bytes, long_ones) : NULL;
    Py_XDECREF(bytes);
    Py_XDECREF(long_ones);
    return found;
}

static Py_ssize_t buffer_length(PyObject *object)
{
    return ((TimestampBuffer *)object)->size;
}

static PyObject *buffer_item(PyObject *object, Py_ssize_t index) /* Python has added the length to a negative index */
{
    TimestampBuffer *self = (TimestampBuffer *)object;
    if (index < 0 || index >= self->size) {
        PyErr_SetString(PyExc_IndexError, "no such timestamp");
        return NULL;
    }
    return PyLong_FromLongLong(self->ns[index]);
}

static int buffer_delete(PyObject *object, PyObject *which, PyObject *value) /* supports only del timestamps[:] */
{
    TimestampBuffer *self = (TimestampBuffer *)object;
    Py_ssize_t start, stop, step;
    if (value == NULL && Py_TYPE(which) == &PySlice_Type && PySlice_Unpack(which, &start, &stop, &step) == 0 &&
        start == 0 && stop >= self->size && step == 1) {
        self->size = 0;
        return 0;
    }
    PyErr_SetString(PyExc_TypeError, "timestamps can only be appended, or deleted all at once");
    return -1;
}

static void buffer_finish(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(((TimestampBuffer *)object)->ns);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef buffer_methods[] = {
    {"append", buffer_append, METH_O, NULL},
    {"tobytes", buffer_tobytes, METH_NOARGS, NULL},
    {"sums", buffer_sums, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_dealloc, buffer_finish}, {Py_tp_methods, buffer_methods}, {Py_sq_length, buffer_length},
    {Py_sq_item, buffer_item},      {Py_mp_ass_subscript, buffer_delete},
    {0, NULL},
};

static PyType_Spec buffer_spec = {
    .name = "distprof.native._fast_path.TimestampBuffer",
    .basicsize = sizeof(TimestampBuffer),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = buffer_slots,
};

/* Hook: is called when the gradient of a parameter has arrived, and begins an interval of `owner`. */

#define FIELDS(X) \
    X(owner) \
    X(timestamps) \
    X(now) \
    X(owners) \
    X(in_backward) /* list, empty outside of backward: a graph may outlive the window */ \
    X(failed)      /* function that reports an exception, which would otherwise reach the user's backward */

typedef struct {
    PyObject_HEAD
    FIELDS(DECLARE_FIELD)
} Hook;

COLLECTED(Hook, hook, FIELDS)

static PyObject *hook_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Hook *self = (Hook *)object;
    if (PyList_Size(self->in_backward) > 0 &&
        switch_owner(self->timestamps, self->now, self->owners, self->owner) < 0) {
        PyObject *error = take_exception();
        PyObject *done = PyObject_CallFunctionObjArgs(self->failed, error, NULL);
        Py_XDECREF(error);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    Py_RETURN_NONE;
}

static PyObject *hook_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
#define X(name) #name,
    static char *names[] = {FIELDS(X) NULL};
#undef X
    Hook *self = (Hook *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    int whole = PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO!O!O", names, &self->owner, &self->timestamps,
                                            &self->now, &PyList_Type, &self->owners, &PyList_Type,
                                            &self->in_backward, &self->failed);
    FIELDS(OWN_FIELD)
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyObject *new_hook(PyObject *owner, PyObject *timestamps, PyObject *now, PyObject *owners, PyObject *in_backward,
                   PyObject *failed)
{
    return PyObject_CallFunctionObjArgs((PyObject *)hook_type, owner, timestamps, now, owners, in_backward, failed,
                                        NULL);
}

static void hook_finish(PyObject *object)
{
    free_collected(object, hook_clear);
}

static PyType_Slot hook_slots[] = {
    {Py_tp_new, hook_make},     {Py_tp_dealloc, hook_finish}, {Py_tp_traverse, hook_traverse},
    {Py_tp_clear, hook_clear}, {Py_tp_call, hook_call},      {0, NULL},
};

static PyType_Spec hook_spec = {
    .name = "distprof.native._fast_path.Hook",
    .basicsize = sizeof(Hook),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = hook_slots,
};

/* Helpers of all files. */

void *more_room(void *items, Py_ssize_t *capacity, size_t item_bytes)
{
    Py_ssize_t larger = *capacity ? 2 * *capacity : 64;
    void *room = PyMem_Realloc(items, larger * item_bytes);
    if (room == NULL)
        return PyErr_NoMemory();
    *capacity = larger;
    return room;
}

PyObject *take_exception(void)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
}

void free_collected(PyObject *object, inquiry clear)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

PyObject *add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromSpec(spec);
    if (type != NULL && PyModule_AddObject(module, name, type) < 0)
        Py_CLEAR(type);
    return type;
}

int add_timestamp_types(PyObject *module)
{
    buffer_type = (PyTypeObject *)add_type(module, "TimestampBuffer", &buffer_spec);
    hook_type = (PyTypeObject *)add_type(module, "Hook", &hook_spec);
    return buffer_type == NULL || hook_type == NULL ? -1 : 0;
}
