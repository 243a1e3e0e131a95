"""Pictures in: any common format or DICOM, uint8 RGB out, one clear line for everything else.

- `load`: `load_image`, the one way in
- `raster`: PNG, JPEG, BMP, TIFF and WebP
- `deep_colour`: colours of 16 bits a sample
- `dicom`: DICOM as a viewer shows it
- `codec`, `codec_process`: compressed pixel data of DICOM, decoded in a process of its own
- `grey_levels`: numbers to grey levels
- `decoder_output`: warnings and messages of libraries, held back
"""
