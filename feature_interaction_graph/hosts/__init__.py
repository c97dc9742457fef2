"The two host libraries, transformers with TransformerLens and sae-lens, behind checks of what they deliver."
