"""Pictures in: any common format or DICOM, uint8 RGB out, one clear line for everything else.

- `load`: `load_image`, the one way in
- `dicom`: DICOM as a viewer shows it
- `decoder_output`: what decoders print, held back
"""
