"""Which of torch's operators may the graph in a file call?

An operator is code that the file's author chooses and feeds, and torch checks the arguments of most, not of all:
`_sparse_csr_tensor_unsafe` takes any column for granted and a product with it reads whatever lies there,
`segment_reduce` with lengths that are none leaves its memory, `resize_` hands out memory of earlier requests as it is,
`aten.save` writes a file of any name. So what is not listed here is not called. Listed is what exported
models consist of: elementwise and linear algebra, reductions, shapes, indices that torch checks, and the layers of
`torch.nn`. Where torch checks the arguments of a layer too little, `guarded` checks them; `empty`, which some layers
begin with, is zeros there.

An operator in place (`add_`) is listed by the name of the other (`add`); one that writes into a given tensor (`out`)
resizes it and is not. Standard library only, as `program` is.
"""

from __future__ import annotations

import re

_OPERATOR = re.compile(r"torch\.ops\.(aten|prims)\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)\Z")

_ELEMENTWISE = """
__and__ __lshift__ __or__ __rshift__ __xor__ abs absolute acos acosh add addcdiv addcmul angle arccos arccosh arcsin
arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip complex conj conj_physical copysign cos cosh
deg2rad digamma div divide elu eq erf erfc erfinv exp exp2 expm1 fill fix float_power floor floor_divide fmax fmin
fmod frac ge gelu glu greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 igamma
igammac imag isclose isfinite isinf isnan isneginf isposinf isreal ldexp le leaky_relu lerp less less_equal lgamma log
log10 log1p log2 log_sigmoid log_sigmoid_forward logaddexp logaddexp2 logical_and logical_not logical_or logical_xor
logit lt masked_fill maximum minimum mish mul multiply mvlgamma nan_to_num ne neg negative nextafter not_equal polar
polygamma positive pow prelu rad2deg real reciprocal relu relu6 remainder resolve_conj resolve_neg round rrelu rsqrt
rsub selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink special_entr special_erf special_erfc
special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_gammaln special_i0 special_i0e
special_i1 special_i1e special_log1p special_log_ndtr special_logit special_ndtr special_ndtri special_round
special_sinc special_xlog1py special_xlogy sqrt square sub subtract tan tanh threshold true_divide trunc where xlogy
zero _conj _conj_physical _neg_view _prelu_kernel
"""
_REDUCTIONS = """
all amax amin aminmax any argmax argmin argsort argwhere bincount corrcoef count_nonzero cov cummax cummin cumprod
cumsum cumulative_trapezoid diff dist equal frobenius_norm histc kthvalue linalg_matrix_norm linalg_norm
linalg_vector_norm log_softmax logcumsumexp logsumexp max mean median min mode msort nanmean nanmedian nanquantile
nansum nonzero norm nuclear_norm prod quantile renorm softmax sort special_log_softmax special_logsumexp
special_softmax std std_mean sum sum_to_size topk trace trapezoid trapz unique_consecutive unique_dim var var_mean
_is_all_true _log_softmax _softmax _unique2
"""
_PRODUCTS = """
addbmm addmm addmv addr baddbmm bilinear block_diag bmm cartesian_prod cdist chain_matmul cholesky cholesky_inverse
cholesky_solve combinations cosine_similarity cross det dot einsum ger inner inverse kron linalg_cholesky
linalg_cholesky_ex linalg_cond linalg_cross linalg_det linalg_diagonal linalg_eig linalg_eigh linalg_eigvals
linalg_eigvalsh linalg_inv linalg_inv_ex linalg_lstsq linalg_matmul linalg_matrix_exp linalg_matrix_power
linalg_matrix_rank linalg_multi_dot linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex
linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander linalg_vecdot
linear logdet matmul matrix_exp matrix_power mm mv outer pairwise_distance pdist pinverse qr slogdet svd tensordot
triangular_solve vander vdot _cdist_forward _linalg_check_errors _linalg_det _linalg_eigh _linalg_slogdet
_linalg_solve_ex _linalg_svd _pdist_forward _trilinear
"""
_SHAPES = """
adjoint alias alias_copy as_strided as_strided_copy as_strided_scatter atleast_1d atleast_2d atleast_3d
broadcast_tensors broadcast_to cat channel_shuffle chunk clone col2im column_stack concat concatenate constant_pad_nd
contiguous copy detach detach_copy diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter dsplit dstack
expand expand_as expand_copy flatten fliplr flip flipud hsplit hstack im2col lift_fresh lift_fresh_copy meshgrid
moveaxis movedim narrow narrow_copy native_channel_shuffle numpy_T pad permute permute_copy pixel_shuffle
pixel_unshuffle ravel reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d
replication_pad2d replication_pad3d reshape reshape_as roll rot90 row_stack select select_copy select_scatter slice
slice_copy slice_inverse slice_scatter split split_copy split_with_sizes split_with_sizes_copy squeeze squeeze_copy
stack swapaxes swapdims t t_copy tensor_split tile to transpose transpose_copy tril triu type_as unbind unbind_copy
unflatten unfold unfold_copy unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_copy view view_as
view_as_complex view_as_complex_copy view_as_real view_as_real_copy view_copy vsplit vstack mH mT matrix_H is_nonzero
item size stride numel dim sym_is_contiguous sym_numel sym_size sym_storage_offset sym_stride sym_constrain_range
sym_constrain_range_for_size _assert_async _assert_scalar _assert_tensor_metadata _local_scalar_dense _shape_as_tensor
_to_copy _unsafe_view
"""
_MADE = """
empty arange bartlett_window bernoulli blackman_window eye full full_like hamming_window hann_window kaiser_window
linspace logspace multinomial new_full new_ones new_zeros normal normal_functional ones ones_like poisson rand
rand_like randint randint_like randn randn_like randperm range scalar_tensor tril_indices triu_indices uniform vander
zeros zeros_like
"""
_INDICES = """
bucketize embedding embedding_bag gather index index_add index_copy index_fill index_put index_reduce index_select
isin masked_scatter masked_select nonzero_numpy nonzero_static one_hot put scatter scatter_add scatter_reduce
searchsorted take take_along_dim _embedding_bag _embedding_bag_forward_only _unsafe_index _unsafe_index_put
_unsafe_masked_index
"""
_LAYERS = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
adaptive_max_pool3d affine_grid_generator alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm
binary_cross_entropy binary_cross_entropy_with_logits conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d
conv_transpose3d convolution cross_entropy_loss dropout feature_alpha_dropout feature_dropout grid_sampler
grid_sampler_2d grid_sampler_3d group_norm gru gru_cell huber_loss instance_norm kl_div l1_loss layer_norm lstm
lstm_cell max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
max_unpool2d max_unpool3d mse_loss native_batch_norm native_dropout native_group_norm native_layer_norm rms_norm
rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell scaled_dot_product_attention smooth_l1_loss upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
_adaptive_avg_pool2d _adaptive_avg_pool3d _convolution _native_batch_norm_legit _native_batch_norm_legit_no_training
_scaled_dot_product_flash_attention_for_cpu _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm _weight_norm_interface
"""
_SPECTRA = """
fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft
fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn istft stft _fft_c2c _fft_c2r _fft_r2c
"""
_ATEN = frozenset(" ".join((_ELEMENTWISE, _REDUCTIONS, _PRODUCTS, _SHAPES, _MADE, _INDICES, _LAYERS, _SPECTRA)).split())
_PRIMS = frozenset({"broadcast_in_dim", "convert_element_type", "iota", "rev", "view_of", "where"})
_TRUSTING = frozenset(
    (
        *("lstm.data", "gru.data", "rnn_tanh.data", "rnn_relu.data"),
        *("_upsample_bilinear2d_aa.default", "_upsample_bicubic2d_aa.default"),
    )
)
"""Overloads that take batch sizes of packed sequences, or scales, as they come; the others of these names do not."""


def is_listed(target: str) -> bool:
    """Return whether the name, `torch.ops.NAMESPACE.NAME.OVERLOAD`, is an operator's that a graph may call."""
    found = _OPERATOR.match(target)
    if found is None:
        return False
    namespace, name, overload = found.groups()
    if namespace == "prims":
        return name in _PRIMS
    return (
        (name in _ATEN or name.removesuffix("_") in _ATEN)
        and not overload.endswith("out")
        and f"{name}.{overload}" not in _TRUSTING
    )
