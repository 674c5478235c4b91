/* The rows of the inputs of experts in a list: does what PythonRowCounts of expert_rows.py does.
 *
 * A model may have thousands of such experts, and each of them is called in every step.
 */
#include "_timestamps.h"

/* RowCounts(experts, plain): the rows that the experts of one layer got since `begin` or `take`.  Readers read tensors
 * of the type `plain` themselves. */

typedef struct {
    PyObject_HEAD
    int64_t *rows;
    Py_ssize_t size;
    int called;      /* an expert was called since `begin` */
    int by_value;    /* the rows have to be read: all calls are the slow reader's */
    PyObject *plain; /* torch.Tensor: neither a parameter nor a subclass */
} RowCounts;

static PyTypeObject *counts_type, *reader_type;
static PyObject *s_shape;

static PyObject *counts_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t size;
    PyObject *plain;
    if (!PyArg_ParseTuple(args, "nO", &size, &plain))
        return NULL;
    RowCounts *self = (RowCounts *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(plain);
    self->plain = plain;
    self->size = size < 0 ? 0 : size;
    self->rows = PyMem_Calloc(self->size + 1, sizeof *self->rows); /* never of no bytes */
    if (self->rows == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void counts_finish(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(((RowCounts *)object)->rows);
    Py_XDECREF(((RowCounts *)object)->plain);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static int add_rows(RowCounts *self, Py_ssize_t place, int64_t rows)
{
    if (place < 0 || place >= self->size) {
        PyErr_SetString(PyExc_IndexError, "no such expert");
        return -1;
    }
    self->rows[place] += rows;
    self->called = 1;
    return 0;
}

/* add(place, rows): the expert at this place is called with so many rows.  Raises IndexError without such an expert. */
static PyObject *counts_add(PyObject *object, PyObject *args)
{
    Py_ssize_t place;
    long long rows;
    if (!PyArg_ParseTuple(args, "nL", &place, &rows) || add_rows((RowCounts *)object, place, rows) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* begin(by_value): a step begins, in which the slow readers get all calls if `by_value` is true. */
static PyObject *counts_begin(PyObject *object, PyObject *by_value)
{
    RowCounts *self = (RowCounts *)object;
    memset(self->rows, 0, self->size * sizeof *self->rows);
    self->called = 0;
    self->by_value = PyObject_IsTrue(by_value);
    Py_RETURN_NONE;
}

/* take(): returns the rows so far as bytes, one int64 for each expert; the next ones are counted from 0. */
static PyObject *counts_take(PyObject *object, PyObject *unused)
{
    RowCounts *self = (RowCounts *)object;
    PyObject *bytes = PyBytes_FromStringAndSize((char *)self->rows, self->size * sizeof *self->rows);
    if (bytes != NULL)
        memset(self->rows, 0, self->size * sizeof *self->rows);
    return bytes;
}

static PyObject *counts_called(PyObject *object, void *unused)
{
    return PyBool_FromLong(((RowCounts *)object)->called);
}

/* reader(place, slow): returns the RowReader of the inputs of the expert at this place. */
static PyObject *counts_reader(PyObject *object, PyObject *args)
{
    PyObject *place, *slow;
    if (!PyArg_ParseTuple(args, "OO", &place, &slow))
        return NULL;
    return PyObject_CallFunctionObjArgs((PyObject *)reader_type, object, place, slow, NULL);
}

static PyMethodDef counts_methods[] = {
    {"add", counts_add, METH_VARARGS, NULL},
    {"begin", counts_begin, METH_O, NULL},
    {"take", counts_take, METH_NOARGS, NULL},
    {"reader", counts_reader, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef counts_attributes[] = {
    {"called", counts_called, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot counts_slots[] = {
    {Py_tp_new, counts_make},         {Py_tp_dealloc, counts_finish},  {Py_tp_methods, counts_methods},
    {Py_tp_getset, counts_attributes}, {0, NULL},
};

static PyType_Spec counts_spec = {
    .name = "distprof.native._fast_path.RowCounts",
    .basicsize = sizeof(RowCounts),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = counts_slots,
};

/* RowReader(counts, place, slow): is called with (args, kwargs), a tuple and a dict, before its expert runs; what it
 * cannot read itself it passes on to `slow`. */

#define FIELDS(X) \
    X(counts) \
    X(slow) /* reads what is not a plain tensor of two dimensions alone */

typedef struct {
    PyObject_HEAD
    FIELDS(DECLARE_FIELD)
    Py_ssize_t place;
} RowReader;

COLLECTED(RowReader, reader, FIELDS)

int is_row_reader(PyObject *object)
{
    return Py_TYPE(object) == reader_type;
}

/* Returns the rows of a plain tensor of two dimensions that has columns; -1 for all else, or with an exception set. */
static long long plain_rows(PyObject *tensor)
{
    PyObject *shape = PyObject_GetAttr(tensor, s_shape);
    long long rows = -1;
    if (shape != NULL && PyTuple_Check(shape) && PyTuple_Size(shape) == 2 &&
        PyLong_AsLongLong(PyTuple_GetItem(shape, 1)) > 0)
        rows = PyLong_AsLongLong(PyTuple_GetItem(shape, 0));
    Py_XDECREF(shape);
    return rows;
}

int count_rows(PyObject *object, PyObject *args, PyObject *kwargs)
{
    RowReader *self = (RowReader *)object;
    RowCounts *counts = (RowCounts *)self->counts;
    int is_alone = PyTuple_Size(args) == 1 && PyDict_Size(kwargs) == 0;
    PyObject *tensor = is_alone ? PyTuple_GetItem(args, 0) : NULL;
    if (tensor != NULL && (PyObject *)Py_TYPE(tensor) == counts->plain && !counts->by_value) {
        long long rows = plain_rows(tensor);
        if (PyErr_Occurred())
            return -1;
        if (rows >= 0)
            return add_rows(counts, self->place, rows);
    }
    PyObject *done = PyObject_CallFunctionObjArgs(self->slow, args, kwargs, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *reader_call(PyObject *object, PyObject *given, PyObject *unused)
{
    PyObject *args, *kwargs;
    if (!PyArg_ParseTuple(given, "O!O!", &PyTuple_Type, &args, &PyDict_Type, &kwargs) ||
        count_rows(object, args, kwargs) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *reader_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    RowReader *self = (RowReader *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    int whole = PyArg_ParseTuple(args, "O!nO", counts_type, &self->counts, &self->place, &self->slow);
    FIELDS(OWN_FIELD)
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void reader_finish(PyObject *object)
{
    free_collected(object, reader_clear);
}

static PyType_Slot reader_slots[] = {
    {Py_tp_new, reader_make},     {Py_tp_dealloc, reader_finish}, {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear}, {Py_tp_call, reader_call},      {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "distprof.native._fast_path.RowReader",
    .basicsize = sizeof(RowReader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = reader_slots,
};

int add_expert_row_types(PyObject *module)
{
    s_shape = PyUnicode_InternFromString("shape");
    counts_type = (PyTypeObject *)add_type(module, "RowCounts", &counts_spec);
    reader_type = (PyTypeObject *)add_type(module, "RowReader", &reader_spec);
    return s_shape == NULL || counts_type == NULL || reader_type == NULL ? -1 : 0;
}
