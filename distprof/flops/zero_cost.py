"""Ops that count 0 flops by decision: they move, pick, order, make or convert numbers, or return facts of tensors."""

from __future__ import annotations

#: Namespaces without arithmetic of a model: communication, bookkeeping, queries.
NAMESPACES = frozenset(
    {"prim", "profiler", "c10d", "_c10d_functional", "_c10d_functional_autograd", "c10d_functional", "_dtensor",
     "fsdp", "symm_mem", "rngprims", "debugprims"}
)  # fmt: skip

#: Views are left out, as torch marks them.  The names hold for ``_foreach_*`` ops, too.
OPS = frozenset(
    """
    alias arange argsort argwhere as_strided as_strided_scatter atleast_1d bernoulli binomial bincount block_diag
    broadcast_tensors bucketize cat cauchy channel_shuffle clone col_indices combinations concat constant_pad_nd
    contiguous copy complex crow_indices detach diag_embed diagonal_backward diagonal_scatter embedding
    embedding_renorm empty empty_like empty_permuted empty_quantized empty_strided equal expand eye fill flip full
    full_like gather geometric histc im2col index index_copy index_fill index_select is_coalesced is_nonzero
    is_same_size isin item kthvalue lift lift_fresh linspace log_normal logspace masked_fill masked_scatter
    masked_scatter_backward masked_select max_unpool2d max_unpool3d median mode multinomial nanmedian narrow_copy
    native_channel_shuffle new_empty new_empty_strided new_full new_ones new_zeros nonzero nonzero_static normal
    normal_functional one_hot ones ones_like permute pin_memory pixel_shuffle pixel_unshuffle poisson put rand
    rand_like randint randint_like randn randn_like random randperm record_stream reflection_pad1d reflection_pad2d
    reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape resize
    resize_as roll rot90 scalar_tensor scatter searchsorted segment_reduce select_backward select_scatter set
    slice_backward slice_scatter sort split split_with_sizes stack take to topk tril tril_indices triu triu_indices
    unbind unfold uniform unique_consecutive unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d value_selecting_reduction_backward view view_as_complex view_as_real where zero zeros
    zeros_like _assert_async _assert_scalar _chunk_cat _coalesced _conj _conj_copy _copy_from
    _copy_from_and_resize _cudnn_init_dropout_state _cudnn_rnn_flatten_weight _efficientzerotensor _fused_sdp_choice
    _has_compatible_shallow_copy_type _linalg_check_errors _local_scalar_dense _mkldnn_reshape _mkldnn_transpose
    _neg_view _nested_from_padded _nested_from_padded_and_nested_example _nested_tensor_from_mask
    _nested_tensor_from_mask_left_aligned _nested_tensor_from_tensor_list _nested_tensor_size _nested_tensor_strides
    _nested_tensor_storage_offsets _pack_padded_sequence _pack_padded_sequence_backward _pad_enum _pin_memory
    _reshape_alias _reshape_copy _resize_output _sparse_coo_tensor_with_dims_and_tensors _stack _standard_gamma
    _to_copy _to_dense _unique _unique2 _unsafe_index _unsafe_view _use_cudnn_ctc_loss _use_cudnn_rnn_flatten_weight
    _amp_update_scale any all bitwise_and bitwise_or bitwise_not bitwise_xor
    count_nonzero allclose to_padded_tensor to_mkldnn mkldnn_reorder_conv2d_weight
    mkldnn_reorder_conv3d_weight sym_size sym_stride sym_numel sym_storage_offset size stride numel storage_offset dim
    is_contiguous sym_is_contiguous squeeze unsqueeze transpose t swapaxes swapdims
    hash_tensor histogram _histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors
    _is_all_true _is_any_true hann_window hamming_window bartlett_window blackman_window kaiser_window is_pinned
    is_set_to _nnz _dimI _dimV dense_dim sparse_dim _to_sparse_csr _to_sparse_csc _to_sparse_bsr _to_sparse_bsc
    sparse_coo_tensor sparse_compressed_tensor _sparse_coo_tensor_with_dims _sparse_compressed_tensor_with_dims
    sparse_resize sparse_resize_and_clear copy_sparse_to_sparse resize_as_sparse _validate_compressed_sparse_indices
    _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo _sparse_mask_projection _sparse_sum_backward
    _spdiags dequantize quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic int_repr q_scale
    q_zero_point q_per_channel_scales q_per_channel_zero_points q_per_channel_axis qscheme
    _make_per_tensor_quantized_tensor _make_per_channel_quantized_tensor _empty_affine_quantized
    _empty_per_channel_affine_quantized _convert_weight_to_int4pack _convert_weight_to_int4pack_for_cpu
    _dyn_quant_pack_4bit_weight _cslt_compress _cslt_sparse_mm_search _to_sparse_semi_structured
    _sparse_semi_structured_tile _sparse_semi_structured_apply _sparse_semi_structured_apply_dense range from_file
    fft_fftfreq fft_rfftfreq sym_constrain_range sym_constrain_range_for_size _functional_assert_async
    _functional_assert_scalar _functional_sym_constrain_range _functional_sym_constrain_range_for_size _make_dep_token
    _print _lazy_clone unique_dim_consecutive _has_same_storage_numel _assert_tensor_metadata _sample_dirichlet
    _fill_mem_eff_dropout_mask _new_zeros_with_same_feature_meta _nested_get_offsets _nested_get_lengths
    _nested_get_ragged_idx _nested_get_jagged_dummy _nested_get_min_seqlen _nested_get_max_seqlen
    _nested_select_backward _use_miopen_ctc_loss
    _to_sparse sparse_mask lu_unpack _unsafe_masked_index
    """.split()  # noqa: SIM905
)

#: Ops of other libraries, with the library's name.
LIBRARY_OPS = frozenset(
    {"torchvision::nms", "quantized::cat", "quantized::cat_out", "quantized::cat_relu", "quantized::cat_relu_out",
     "quantized::dropout", "quantized::max_pool1d", "quantized::embedding_byte", "quantized::embedding_4bit",
     "inductor::_reinterpret_tensor", "inductor::resize_storage_bytes_", "inductor_prims::inductor_reserve_rng_state",
     "mkldnn::_nbytes", "mkldnn::data_ptr", "mkldnn::_get_mkldnn_serialized_md", "debug_mode_ops::annotate",
     "export::access_subclass_inner_tensor"}
)  # fmt: skip
#: Parts of the names of ops that pack, unpack or reorder weights.
_PACKING = ("prepack", "unpack", "rowwise_offsets", "reorder", "packed_params", "packed_weight")


def is_free_library_op(name: str) -> bool:
    """Whether an op of another library than aten (``quantized::linear_prepack``) does no arithmetic."""
    return name in LIBRARY_OPS or any(part in name for part in _PACKING)
